package cache

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	fillsAtOnce  = 64      // in one script
	bytesAtOnce  = 1 << 20 // in one script, about: Redis does nothing else meanwhile
	fillsWaiting = 512     // more are not stored
	bytesWaiting = 4 << 20 // likewise
)

// A fill is a value on its way into Redis, for which nobody waits.
type fill struct {
	ctx   context.Context // of who has read it, without its end: for its trace
	claim claim
	value string
	ttl   time.Duration
	stats *kindMetrics
}

// fills stores what was read under leases, in the order in which it came, and all at once what has come while it was at
// work. There is no goroutine where there is nothing to be stored.
type fills struct {
	mu      sync.Mutex
	waiting []fill
	bytes   int // of the values that wait
	working bool
	closed  bool
	ended   sync.WaitGroup // of the work
}

// stored returns a value as it lies in Redis, which was read from PostgreSQL just now.
func stored(epoch string, body []byte, missing bool) string {
	mark := byte(present)
	if missing {
		mark = absent
	}
	return fmt.Sprintf("V%s%c%08x%s", epoch, mark, time.Now().Unix(), body)
}

// fillSoon has a value stored, and reports whether it will be tried. It does not wait for Redis.
func (s *shared) fillSoon(f fill) bool {
	q := &s.fills[f.claim.group]
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.waiting) == fillsWaiting || q.bytes+len(f.value) > bytesWaiting {
		f.stats.rejectedRedis.Inc()
		return false
	}
	q.waiting = append(q.waiting, f)
	q.bytes += len(f.value)
	if !q.working {
		q.working = true
		q.ended.Go(func() { s.fillWaiting(f.claim.group) })
	}
	return true
}

// fillWaiting stores what waits, until there is nothing more.
func (s *shared) fillWaiting(g int) {
	for {
		fills := s.fills[g].take()
		if len(fills) == 0 {
			return
		}
		if s.breakers[g].open.Load() {
			continue // their leases run out by themselves
		}
		faults.at("before fill")
		done, err := s.fill(fills[0].ctx, g, fills)
		for i, f := range fills {
			if err == nil && part[int64](done, i) == 0 {
				f.stats.rejectedRedis.Inc()
			}
		}
	}
}

// take returns what is next, or else ends the work.
func (q *fills) take() (next []fill) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bytes := 0, 0
	for n < min(len(q.waiting), fillsAtOnce) && bytes < bytesAtOnce {
		bytes += len(q.waiting[n].value)
		n++
	}
	next, q.waiting = q.waiting[:n:n], q.waiting[n:]
	q.bytes -= bytes
	if n == 0 {
		q.waiting, q.working = nil, false
	}
	return next
}

// drain stores what waits, and refuses what comes.
func (q *fills) drain() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.ended.Wait()
}

// fill stores values of one group under their leases. It returns for each 1, or 0 where the lease has been lost: then the
// value may be old.
func (s *shared) fill(ctx context.Context, g int, fills []fill) (done []any, err error) {
	keys, args := make([]string, 0, len(fills)), make([]any, 0, 3*len(fills))
	for _, f := range fills {
		if faults.deleteAfterCommit() {
			_ = s.client.Set(ctx, f.claim.key, f.value, f.ttl)
			done = append(done, int64(1))
			continue
		}
		keys, args = append(keys, f.claim.key), append(args, f.claim.lease, f.value, f.ttl.Milliseconds())
	}
	if len(keys) == 0 {
		return done, nil
	}
	return s.eval(ctx, s.client, s.timeout, g, scriptFill, keys, args...).Slice()
}

// release gives a lease back, so that the next reader need not wait for its end.
func (s *shared) release(ctx context.Context, c claim) {
	_ = s.eval(ctx, s.client, s.timeout, c.group, scriptFill, []string{c.key}, c.lease, "", 0).Err() // it runs out by itself
}

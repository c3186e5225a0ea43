package cache

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	batchesAway = 2                    // on their way to Redis, from where on further lookups gather
	batchSize   = 32                   // lookups at most, each of one value or two
	gatherFor   = 2 * time.Millisecond // how long they do, at most: what is stuck holds nobody up
)

// batches sends the lookups of one group. One that finds no other on its way is sent at once. Those that come while others
// are gather, and are then sent in one pipeline: they share its system calls, its connection, and one answer to the
// question of who reigns.
type batches struct {
	mu   sync.Mutex
	away int    // on their way
	next *batch // gathers lookups; nil where there are none
}

// A batch is one pipeline. Its first reader sends it for all.
type batch struct {
	commands []redis.Cmder
	lookups  int
	until    time.Time     // when the first of its readers has waited long enough
	turn     chan struct{} // receives when it need not gather any longer; nil where it has not gathered
	done     chan struct{} // closed when it is back; likewise
	reign    string        // the server's, after all commands; empty where it has none
	err      error         // of a server that has not answered them all
}

// ask sends commands to the server that has the key, in one round trip, and returns its reign after them. It takes no
// longer than the timeout or the context's deadline, whichever is earlier. Errors of single commands stay with these.
//
// A batch is bounded by the timeout alone, so that no reader's context ends it for others. A reader who has less time than
// that goes alone.
func (s *shared) ask(ctx context.Context, g int, key string, commands ...redis.Cmder) (reign string, err error) {
	until := time.Now().Add(s.timeout)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		b := &batch{commands: commands}
		s.send(ctx, key, b)
		s.breakers[g].note(b.err)
		return b.reign, b.err
	}
	q := &s.batches[g]
	b, first := q.join(commands, until)
	if !first {
		<-b.done
		return b.reign, b.err
	}
	q.depart(b, s.gather)
	defer q.back(b)
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), b.until)
	defer cancel()
	s.send(ctx, key, b)
	s.breakers[g].note(b.err)
	return b.reign, b.err
}

// join adds a lookup to the batch that gathers, or begins one, which the caller is to send.
func (q *batches) join(commands []redis.Cmder, until time.Time) (b *batch, first bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next == nil {
		b = &batch{commands: commands, lookups: 1, until: until}
		if q.away < batchesAway {
			q.away++
		} else {
			b.turn, b.done = make(chan struct{}, 1), make(chan struct{})
			q.next = b
		}
		return b, true
	}
	b = q.next
	b.commands = append(b.commands, commands...)
	if b.lookups++; b.lookups == batchSize {
		q.next = nil
		q.away++
		b.wake()
	}
	return b, false
}

// depart returns when a batch may be sent, and nobody joins it any more.
func (q *batches) depart(b *batch, gather time.Duration) {
	if b.turn == nil {
		return
	}
	enough := time.NewTimer(gather)
	defer enough.Stop()
	select {
	case <-b.turn:
	case <-enough.C:
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next == b {
		q.next = nil
		q.away++
	}
}

// back lets the readers of a batch go, and the next batch.
func (q *batches) back(b *batch) {
	if b.done != nil {
		close(b.done)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.away--; q.away < batchesAway && q.next != nil {
		q.next.wake()
	}
}

func (b *batch) wake() {
	select {
	case b.turn <- struct{}{}:
	default:
	}
}

// send sends a batch, and has the server tell its reign after the values, on the same connection: one that is the same as
// before them is the one in which they were read.
func (s *shared) send(ctx context.Context, key string, b *batch) {
	client := s.client
	if cluster, ok := client.(*redis.ClusterClient); ok {
		node, err := cluster.MasterForKey(ctx, key)
		if err != nil {
			b.err = err
			return
		}
		client = node
	}
	info := redis.NewStringCmd(ctx, "info", "replication")
	pipe := client.Pipeline()
	_ = pipe.BatchProcess(ctx, append(b.commands, info)...) // only queues them
	_, _ = pipe.Exec(ctx)
	if b.err = info.Err(); b.err == nil { // a server that answers the last one has answered all
		b.reign = reign(info.Val())
	}
}

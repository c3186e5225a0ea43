package rollout

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/strata-accounts/strata/platform/db"
)

const (
	compareTimeout = 2 * time.Second        // for the comparisons of one transaction
	batchSpan      = 100 * time.Millisecond // after which a transaction takes no more of them
	minRest        = 20 * time.Millisecond  // in which comparisons gather: BEGIN, the role and ROLLBACK cost more than one
	maxRest        = time.Second
	nap            = time.Millisecond // between looks whether anybody is being answered
)

// errRead ends a transaction of reads: after a statement that failed, it could not be committed.
var errRead = errors.New("rollout: everything has been read")

// comparer repeats reads in the background, in the moments in which nobody is being answered. What comes while its queue
// is full is dropped: no request ever waits. It rests for as long as it has worked, so that requests find most of the machine
// free, the slower it is the more.
type comparer struct {
	db      *db.DB
	role    atomic.Pointer[string] // that it reads under; nil: the connection's own
	jobs    chan *trial            // answers to be compared
	doubts  chan *trial            // differences to be looked at again: they come first, and no answer crowds them out
	workers int                    // transactions at a time at most
	reading atomic.Int64           // reads from PostgreSQL that are under way, answers and comparisons
	most    int64                  // of them: no comparison begins beside as many
}

func newComparer(d *db.DB, queue, workers int) *comparer {
	return &comparer{
		db: d, jobs: make(chan *trial, queue), doubts: make(chan *trial, queue), workers: workers,
		most: max(1, int64(runtime.GOMAXPROCS(0)/2)),
	}
}

// run works the queues off until ctx ends.
func (c *comparer) run(ctx context.Context) {
	for ctx.Err() == nil {
		rest(ctx, c.next(ctx))
	}
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(min(d, maxRest)):
	}
}

// next compares what waits, or what comes, and returns how long to rest.
func (c *comparer) next(ctx context.Context) time.Duration {
	var job, doubt *trial
	select {
	case doubt = <-c.doubts:
	default:
		select {
		case <-ctx.Done():
			return 0
		case doubt = <-c.doubts:
		case job = <-c.jobs:
		}
	}
	if doubt != nil {
		began := time.Now()
		doubt.confirm(ctx)
		return time.Since(began)
	}
	return c.batches(ctx, job)
}

// batches compares an answer and what waits behind it: one after the other while that is enough, and on more connections
// the fuller the queue is, on all that it may have once half of it is. It returns how long to rest.
func (c *comparer) batches(ctx context.Context, first *trial) time.Duration {
	n := min(c.workers, 1+2*c.workers*len(c.jobs)/cap(c.jobs))
	var worked atomic.Int64
	var all sync.WaitGroup
	all.Go(func() { worked.Add(int64(c.batch(ctx, first))) })
	for range n - 1 {
		select {
		case t := <-c.jobs:
			all.Go(func() { worked.Add(int64(c.batch(ctx, t))) })
		default:
		}
	}
	all.Wait()
	return max(minRest, time.Duration(worked.Load())/time.Duration(n))
}

// batch compares an answer, and in the same transaction those that wait behind it, for a while or until a statement fails.
// It returns how long it has worked.
func (c *comparer) batch(ctx context.Context, t *trial) (worked time.Duration) {
	until := time.Now().Add(batchSpan)
	begun := false
	err := c.readOnly(ctx, false, func(ctx context.Context) {
		begun = true
		for {
			c.giveWay(until)
			began := time.Now()
			intact := t.run(ctx)
			if worked += time.Since(began); !intact || began.After(until) {
				return
			}
			select {
			case t = <-c.jobs:
			default:
				return
			}
		}
	})
	if err != nil && !begun {
		t.m.counters.dropped.Add(1)
	}
	return worked
}

// giveWay waits while those who are answered need half of the machine, if the queue has room for what comes meanwhile.
func (c *comparer) giveWay(until time.Time) {
	for c.reading.Load() >= c.most && len(c.jobs) < cap(c.jobs)/2 && time.Now().Before(until) {
		time.Sleep(nap)
	}
}

// room reports whether the queue takes another job, as far as that can be known without putting it there.
func (c *comparer) room() bool { return len(c.jobs) < cap(c.jobs) }

// readOnly runs fn in a transaction in which nothing can be written, not by this role nor by any. In a snapshot, all its
// reads see the same state.
func (c *comparer) readOnly(ctx context.Context, snapshot bool, fn func(context.Context)) error {
	ctx, cancel := context.WithTimeout(ctx, compareTimeout)
	defer cancel()
	err := c.db.InTx(ctx, func(ctx context.Context) error {
		var setup []string
		if snapshot {
			setup = append(setup, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
		}
		if role := c.role.Load(); role != nil {
			setup = append(setup, assume(*role))
		}
		if len(setup) > 0 {
			if _, err := c.db.Querier(ctx).ExecContext(ctx, strings.Join(setup, "; ")); err != nil {
				return db.Translate(err, nil)
			}
		}
		fn(ctx)
		return errRead
	}, db.ReadOnly())
	if errors.Is(err, errRead) {
		return nil
	}
	return err
}

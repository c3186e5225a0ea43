package rollout

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/strata-accounts/strata/platform/db"
)

const (
	compareTimeout = 2 * time.Second       // for the comparisons of one transaction
	batchSpan      = 20 * time.Millisecond // after which a transaction takes no more of them
	maxRest        = time.Second
)

// errRead ends a transaction of reads: after a statement that failed, it could not be committed.
var errRead = errors.New("rollout: everything has been read")

// comparer repeats reads in the background. What comes while its queue is full is dropped: no request ever waits. Its
// workers rest for as long as they have worked, so that requests find most of the machine free, the slower it is the more.
type comparer struct {
	db     *db.DB
	role   atomic.Pointer[string] // that it reads under; nil: the connection's own
	jobs   chan *trial            // answers to be compared
	doubts chan *trial            // differences to be looked at again: they come first, and no answer crowds them out
}

func newComparer(d *db.DB, queue int) *comparer {
	return &comparer{db: d, jobs: make(chan *trial, queue), doubts: make(chan *trial, queue)}
}

// run works the queues off until ctx ends.
func (c *comparer) run(ctx context.Context, workers int) {
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for ctx.Err() == nil {
				rest(ctx, c.next(ctx))
			}
		})
	}
	all.Wait()
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(min(d, maxRest)):
	}
}

// next compares what waits, or what comes, and returns how long that took.
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
	began := time.Now()
	if doubt != nil {
		doubt.confirm(ctx)
	} else {
		c.batch(ctx, job)
	}
	return time.Since(began)
}

// batch compares an answer, and in the same transaction those that wait behind it, for a while or until a statement fails.
func (c *comparer) batch(ctx context.Context, t *trial) {
	until := time.Now().Add(batchSpan)
	begun := false
	err := c.readOnly(ctx, false, func(ctx context.Context) {
		begun = true
		for t.run(ctx) && time.Now().Before(until) {
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

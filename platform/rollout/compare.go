package rollout

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/errs"
)

const (
	confirmAfter   = 50 * time.Millisecond // a difference is looked at again
	compareTimeout = 2 * time.Second       // for one comparison, the wait apart
	maxPending     = 20                    // reports of a module between two polls; the rest is only counted
)

var (
	// errRead ends a transaction of reads: after a statement that failed, it could not be committed.
	errRead = errors.New("rollout: everything has been read")
	// errPanicked stands for the error of a call that returned none.
	errPanicked = errors.New("rollout: a path panicked")
)

// comparer repeats reads in the background. What comes while its queue is full is dropped: no request ever waits.
type comparer struct {
	db     *db.DB
	role   atomic.Pointer[string]     // that it reads under; nil: the connection's own
	jobs   chan func(context.Context) // answers to be compared
	doubts chan func(context.Context) // differences to be looked at again: they come first, and no answer crowds them out
}

// A Mismatch reports a difference that lasted.
type Mismatch struct {
	Method      string       `json:"-"`
	KeyHash     string       `json:"-"` // of the module and the key
	Version     int64        `json:"-"` // of the module's stage
	Answered    string       `json:"answered"`
	Compared    string       `json:"compared"`
	Differences []Difference `json:"differences"`
	SeenAt      time.Time    `json:"-"`
}

// run works the queue off until ctx ends.
func (c *comparer) run(ctx context.Context, workers int) {
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for ctx.Err() == nil {
				c.next(ctx)
			}
		})
	}
	all.Wait()
}

// next does one job.
func (c *comparer) next(ctx context.Context) {
	select {
	case doubt := <-c.doubts:
		doubt(ctx)
		return
	default:
	}
	select {
	case <-ctx.Done():
	case doubt := <-c.doubts:
		doubt(ctx)
	case job := <-c.jobs:
		job(ctx)
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

// other returns the path to compare an answer with, if it is one of those to be compared: in shadow those of the cohort,
// in repository a sample of all. In the stage cached that is the cache's own affair: it samples its hits.
func (m *Module) other(d decision) (path, bool) {
	if m.compare == nil || d.path == cached {
		return 0, false
	}
	switch s := m.current.Load(); s.Stage {
	case Shadow:
		return repository, d.cohort && d.path == direct
	case Repository:
		return direct + repository - d.path, rand.IntN(Whole) < m.sample //nolint:gosec // a sample, no secret
	default:
		return 0, false
	}
}

// A trial is one read to be compared: what was answered, and how to read again.
type trial struct {
	method, key     string
	version         int64
	answerer, other path
	answered        outcome
	again, try      func(context.Context) (outcome, bool) // on the path that answered, and on the other
}

// queue hands the comparer a job, or counts it as dropped.
func (m *Module) queue(to chan<- func(context.Context), job func(context.Context)) {
	select {
	case to <- job:
	default:
		m.counters.dropped.Add(1)
	}
}

// repeated returns the outcome of a read that is repeated. One that tried to write has failed, whatever the error says of
// PostgreSQL's state elsewhere.
func repeated(value any, err error) (outcome, bool) {
	const readOnlyTransaction = "25006"
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == readOnlyTransaction {
		return outcome{code: "wrote", err: errs.ErrInternal.Wrap(err)}, true
	}
	return outcomeOf(value, err)
}

// run compares. A difference is looked at again a moment later; meanwhile the queue goes on.
func (m *Module) run(ctx context.Context, t trial) {
	if m.current.Load().version != t.version {
		return // it says nothing about the stage that the module is at now
	}
	var got outcome
	ok := false
	started := time.Now()
	err := m.compare.readOnly(ctx, false, func(ctx context.Context) {
		got, ok = t.try(ctx)
		m.counters.reads[t.other].observe(time.Since(started), got.err)
	})
	switch {
	case err != nil || !ok:
		m.counters.dropped.Add(1)
	case len(diff(t.answered, got)) == 0:
		m.counters.compare(t.method, true)
	default:
		time.AfterFunc(confirmAfter, func() {
			m.queue(m.compare.doubts, func(ctx context.Context) { m.confirm(ctx, t) })
		})
	}
}

// confirm counts a difference if it is still there when both paths read one snapshot, so that no write can come between.
func (m *Module) confirm(ctx context.Context, t trial) {
	var a, b outcome
	var aok, bok bool
	err := m.compare.readOnly(ctx, true, func(ctx context.Context) {
		a, aok = t.again(ctx)
		b, bok = t.try(ctx)
	})
	switch {
	case m.current.Load().version != t.version:
		return
	case err != nil || !aok || !bok:
		m.counters.dropped.Add(1)
		return
	}
	differences := diff(a, b)
	m.counters.compare(t.method, len(differences) == 0)
	if len(differences) > 0 {
		m.report(t, differences)
	}
}

// report keeps a mismatch for the next poll to publish.
func (m *Module) report(t trial, differences []Difference) {
	sum := sha256.Sum256([]byte(m.name + "\x00" + t.key))
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.pending) < maxPending {
		m.pending = append(m.pending, Mismatch{
			Method: t.method, KeyHash: hex.EncodeToString(sum[:8]), Version: t.version, Answered: pathNames[t.answerer],
			Compared: pathNames[t.other], Differences: differences,
		})
	}
}

// reports returns the mismatches that have not been published.
func (m *Module) reports() []Mismatch {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.pending)
}

// published forgets the first n of them.
func (m *Module) published(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pending = slices.Delete(m.pending, 0, n)
}

package rollout

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/strata-accounts/strata/platform/errs"
)

const (
	confirmAfter = 50 * time.Millisecond // a difference is looked at again
	maxPending   = 20                    // reports of a module between two polls; the rest is only counted
)

// errPanicked stands for the error of a call that returned none.
var errPanicked = errors.New("rollout: a path panicked")

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
	m               *Module
	method, key     string
	version         int64
	answerer, other path
	answered        outcome
	again, try      func(context.Context) (outcome, bool) // on the path that answered, and on the other
}

// queue puts the trial into one of the comparer's queues, or counts it as dropped.
func (t *trial) queue(to chan<- *trial) {
	select {
	case to <- t:
	default:
		t.m.counters.dropped.Add(1)
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

// run compares in the transaction that ctx carries, and reports whether that goes on: not after a failed statement. A
// difference is looked at again a moment later; meanwhile the queue goes on.
func (t *trial) run(ctx context.Context) (intact bool) {
	m := t.m
	if m.current.Load().version != t.version {
		return true // it says nothing about the stage that the module is at now
	}
	m.compare.reading.Add(1)
	started := time.Now()
	got, ok := t.try(ctx)
	m.compare.reading.Add(-1)
	m.counters.reads[t.other].observe(time.Since(started), got.err)
	switch {
	case !ok:
		m.counters.dropped.Add(1)
	case len(diff(t.answered, got)) == 0:
		m.counters.compare(t.method, true)
	default:
		time.AfterFunc(confirmAfter, func() { t.queue(m.compare.doubts) })
	}
	var refused *pgconn.PgError
	return !failed(got.err) && !errors.As(got.err, &refused)
}

// confirm counts a difference if it is still there when both paths read one snapshot, so that no write can come between.
func (t *trial) confirm(ctx context.Context) {
	m := t.m
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
func (m *Module) report(t *trial, differences []Difference) {
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

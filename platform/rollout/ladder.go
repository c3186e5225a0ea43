// Package rollout moves a module's storage, one rung at a time, from hand-written SQL to a repository to a read-through
// cache: which rung answers for which key, what is compared with what, and when to step back.
package rollout

import (
	"context"
	"strings"
	"time"

	"github.com/strata-accounts/strata/platform/db"
)

// Toucher hears of the cache keys that a transaction is about to change (platform/cache).
type Toucher interface {
	Touch(ctx context.Context, keys ...string) error
}

// Ladder holds the rungs of one module, each a whole implementation R of its Repository.
type Ladder[R any] struct {
	DB         *db.DB
	Module     *Module // decides; nil where Stage does, for every key
	Stage      Stage
	Direct     R
	Repository R
	Cached     R
	Cache      Toucher
}

// decide picks the path for a key.
func (l *Ladder[R]) decide(key string) decision {
	if l.Module != nil {
		return l.Module.decide(key)
	}
	outside, inside := l.Stage.paths()
	if l.Stage == Shadow {
		return decision{path: outside}
	}
	return decision{path: inside}
}

// rung returns the implementation that is the path.
func (l *Ladder[R]) rung(p path) R {
	switch p {
	case repository:
		return l.Repository
	case cached:
		return l.Cached
	default:
		return l.Direct
	}
}

// Read answers from the rung that key is on. Method names the read in reports. Reader is the part of R without writes,
// which every rung must implement: what is read once more to be compared cannot change anything.
func Read[R, Reader, T any](
	ctx context.Context, l *Ladder[R], method, key string, read func(context.Context, Reader) (T, error),
) (T, error) {
	d := l.decide(key)
	rung := reader[Reader](l.rung(d.path))
	m := l.Module
	if m == nil {
		return read(ctx, rung)
	}
	if m.compare != nil && d.path != cached { // what is cached is over at once
		m.compare.reading.Add(1)
		defer m.compare.reading.Add(-1)
	}
	value, err := observed(&m.counters.reads[d.path], func() (T, error) { return read(ctx, rung) })
	if other, ok := m.other(d); ok && !db.InTransaction(ctx) { // what a transaction sees, no other can repeat
		compare(l, method, key, d.path, other, read, value, err)
	}
	return value, err
}

// observed counts a call, also one that panics: as a failure.
func observed[T any](o *operation, call func() (T, error)) (value T, err error) {
	started := time.Now()
	err = errPanicked
	defer func() { o.observe(time.Since(started), err) }()
	return call()
}

// compare has an answer compared with what another path would have said. The answer is encoded at once: its receiver may
// change it. The key is copied, so that a read that is not compared need not have one of its own in the heap.
func compare[R, Reader, T any](
	l *Ladder[R], method, key string, answerer, other path, read func(context.Context, Reader) (T, error), value T, err error,
) {
	m := l.Module
	if !m.compare.room() {
		m.counters.dropped.Add(1)
		return
	}
	answered, ok := outcomeOf(value, err)
	if !ok {
		return
	}
	repeat := func(p path) func(context.Context) (outcome, bool) {
		return func(ctx context.Context) (o outcome, ok bool) {
			defer func() {
				if recover() != nil { // it would end the process
					o, ok = outcome{code: "panicked", err: errPanicked}, true
				}
			}()
			return repeated(read(ctx, reader[Reader](l.rung(p))))
		}
	}
	t := &trial{
		m: m, method: method, key: strings.Clone(key), version: m.current.Load().version, answerer: answerer, other: other, answered: answered,
		again: repeat(answerer), try: repeat(other),
	}
	t.queue(m.compare.jobs)
}

// reader narrows a rung to its reads.
func reader[Reader, R any](rung R) Reader {
	return any(rung).(Reader) //nolint:errcheck,forcetypeassert // a rung that does not read is a mistake of wiring
}

// Write runs write exactly once, on the rung that key is on, in a transaction in which the cache has been told which
// entries it touches: whatever the stage, so that any mix of stages is safe.
func Write[R, T any](
	ctx context.Context, l *Ladder[R], key string, touches []string, write func(context.Context, R) (T, error),
) (T, error) {
	var result T
	err := l.DB.InTx(ctx, func(ctx context.Context) error {
		if l.Cache != nil {
			if err := l.Cache.Touch(ctx, touches...); err != nil {
				return err
			}
		}
		p := l.decide(key).path
		do := func() (T, error) { return write(ctx, l.rung(p)) }
		var err error
		if l.Module == nil {
			result, err = do()
		} else {
			result, err = observed(&l.Module.counters.writes[p], do)
		}
		return err
	})
	return result, err
}

// Exec is Write for what has no result but its error.
func Exec[R any](
	ctx context.Context, l *Ladder[R], key string, touches []string, write func(context.Context, R) error,
) error {
	_, err := Write(ctx, l, key, touches, func(ctx context.Context, rung R) (struct{}, error) {
		return struct{}{}, write(ctx, rung)
	})
	return err
}

package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"time"
)

// confirmAfter is how long a difference must last, so that a foreign write, for which so long is promised, is not taken
// for a stale entry.
const confirmAfter = freshFor + 100*time.Millisecond

// compareFor bounds one comparison.
const compareFor = 5 * time.Second

// sample asks for a hit of each kind at each tick, to compare what was served from memory with PostgreSQL in production.
func (c *Cache) sample(ctx context.Context) error {
	if c.cfg.CheckEvery == 0 {
		return nil
	}
	tick := time.NewTicker(c.cfg.CheckEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			c.due.Range(func(_, due any) bool {
				due.(*atomic.Bool).Store(true) //nolint:errcheck,forcetypeassert // nothing else is stored
				return true
			})
		}
	}
}

// sample compares one served value in the background, if no other hit was faster.
func (e *Entity[T]) sample(id ID, served T, missing bool) {
	if !e.checkDue.CompareAndSwap(true, false) {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), compareFor)
		defer cancel()
		defer func() {
			if recover() != nil {
				e.stats.checkFailed.Inc()
			}
		}()
		e.compare(ctx, id, served, missing)
	}()
}

// compare counts a stale entry when memory and PostgreSQL differ, and after a while memory still says what it said.
func (e *Entity[T]) compare(ctx context.Context, id ID, served T, missing bool) {
	differs := func(value T, gone bool) (bool, error) {
		stored, err := e.load(ctx, id)
		absent := e.opts.NotFound != nil && errors.Is(err, e.opts.NotFound)
		if err != nil && !absent {
			return false, err
		}
		return absent != gone || !absent && !e.same(value, stored), nil
	}
	different, err := differs(served, missing)
	if err == nil && different {
		time.Sleep(confirmAfter)
		again, gerr := e.Get(ctx, id)
		gone := gerr != nil
		same := gone == missing && (gone || sameJSON(served, again))
		if different, err = differs(served, missing); !same {
			different = false
		}
	}
	switch {
	case err != nil:
		e.stats.checkFailed.Inc()
	case different:
		e.stats.checkStale.Inc()
		e.c.log.Error("cache: a stale entry was served", "kind", e.kind)
	default:
		e.stats.checkSame.Inc()
	}
	if err == nil && e.c.cfg.Checked != nil {
		e.c.cfg.Checked(e.kind, id.String(), different)
	}
}

// same reports whether a value that was served may stand for the stored one.
func (e *Entity[T]) same(served, stored T) bool {
	if e.opts.Same != nil {
		return e.opts.Same(served, stored)
	}
	return sameJSON(served, stored)
}

func sameJSON(a, b any) bool {
	x, xerr := json.Marshal(a)
	y, yerr := json.Marshal(b)
	return xerr == nil && yerr == nil && bytes.Equal(x, y)
}

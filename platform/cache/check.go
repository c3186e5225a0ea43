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

// sampler compares what was served from memory with PostgreSQL, in production, one hit at a time.
type sampler struct {
	wanted atomic.Bool // the next hit is to be compared
}

// sample asks for a hit at each tick.
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
			c.sampler.wanted.Store(true)
		}
	}
}

// sample compares one served value in the background, if no other hit was faster.
func (e *Entity[T]) sample(id string, served T, missing bool) {
	if !e.c.sampler.wanted.CompareAndSwap(true, false) {
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
func (e *Entity[T]) compare(ctx context.Context, id string, served T, missing bool) {
	differs := func(value T, gone bool) (bool, error) {
		stored, err := e.load(ctx, id)
		absent := e.opts.NotFound != nil && errors.Is(err, e.opts.NotFound)
		if err != nil && !absent {
			return false, err
		}
		return absent != gone || !absent && !sameJSON(stored, value), nil
	}
	different, err := differs(served, missing)
	if err == nil && different {
		time.Sleep(confirmAfter)
		again, gerr := e.Get(ctx, id)
		gone := gerr != nil
		same := gone == missing && (gone || sameJSON(again, served))
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
}

func sameJSON(a, b any) bool {
	x, xerr := json.Marshal(a)
	y, yerr := json.Marshal(b)
	return xerr == nil && yerr == nil && bytes.Equal(x, y)
}

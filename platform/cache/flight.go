package cache

import (
	"context"
	"sync"

	"github.com/strata-accounts/strata/platform/db"
)

// flights lets readers of one generation share a fetch.
type flights[T any] struct {
	mu    sync.Mutex
	under map[flightKey]*flight[T]
}

type flightKey struct {
	name name
	gen  uint64
}

// A flight is one reader's fetch, of which others wait to share the outcome.
type flight[T any] struct {
	done  chan struct{}
	ended bool // else its reader has given up, and left no outcome
	value T
	err   error
}

// join shares a fetch between the readers of one generation. The lease was valid after this reader began: whatever was
// acknowledged before has changed the generation, so a fetch of the same generation began later than that. The first
// reader fetches for all; when its context ends before it has, another one does.
func (e *Entity[T]) join(ctx context.Context, n name) (T, error) {
	for {
		key := flightKey{n, e.c.local.generation(n)}
		f, first := e.flights.enter(key)
		if first {
			return e.lead(ctx, key, f)
		}
		select {
		case <-f.done:
			if f.ended {
				return f.value, f.err
			}
		case <-ctx.Done():
			var none T
			return none, db.Translate(ctx.Err(), nil)
		}
	}
}

// lead fetches, and lets the others go whatever happens to it.
func (e *Entity[T]) lead(ctx context.Context, key flightKey, f *flight[T]) (T, error) {
	defer e.flights.leave(key, f)
	f.value, f.err = e.fetch(ctx, key.name, key.gen)
	f.ended = f.err == nil || ctx.Err() == nil
	return f.value, f.err
}

// enter returns the fetch under way, or a new one for the caller to do.
func (s *flights[T]) enter(key flightKey) (f *flight[T], first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.under[key]; ok {
		return f, false
	}
	if s.under == nil {
		s.under = map[flightKey]*flight[T]{}
	}
	f = &flight[T]{done: make(chan struct{})}
	s.under[key] = f
	return f, true
}

func (s *flights[T]) leave(key flightKey, f *flight[T]) {
	s.mu.Lock()
	delete(s.under, key)
	s.mu.Unlock()
	close(f.done)
}

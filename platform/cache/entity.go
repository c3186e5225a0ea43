package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"time"

	"github.com/strata-accounts/strata/platform/db"
)

// loadTimeout bounds a load that several readers wait for, none of whose deadlines it may have.
const loadTimeout = 5 * time.Second

// Options describe one kind of entity.
type Options struct {
	// Bounded lets a write be acknowledged while Redis fails, when readers may see the state before it for up to one
	// second. Without it the acknowledgement waits for that second.
	Bounded bool
	// NotFound is what a load returns where there is no such entity. Where it is nil, that is not cached.
	NotFound error
	// Direct makes Get itself look in Redis, under the JSON form of T. Without it the load's first GORM query does,
	// through Plugin; a load that is not one GORM query is then cached in process only.
	Direct bool
}

// Entity reads one kind of entity. T must survive being shared: a caller changes neither the value nor what it points
// to.
type Entity[T any] struct {
	c     *Cache
	kind  string
	opts  Options
	shape string
	stats *kindMetrics
}

// For declares a kind, such as "user". The kind must be the one that the table's trigger notes, and hold no colon.
func For[T any](c *Cache, kind string, opts Options) *Entity[T] {
	if opts.Bounded {
		c.bounded.Store(kind, true)
	}
	return &Entity[T]{c: c, kind: kind, opts: opts, shape: shape(reflect.TypeFor[T]()), stats: c.metrics.kind(kind)}
}

// Key returns the key under which Touch knows an entity.
func (e *Entity[T]) Key(id string) string { return e.kind + ":" + id }

// Get returns the entity from the nearest tier that may be believed, or else from load. A read in a transaction, or with
// WithBypass, is load alone. The context that load gets must be used for its query; it is not cancelled with ctx, since
// others may wait for the same load.
//
// Errors: load's, Options.NotFound also from memory; ctx's own when it ends first. Never one of Redis'.
func (e *Entity[T]) Get(ctx context.Context, id string, load func(ctx context.Context) (T, error)) (T, error) {
	if e.c.bypassed(ctx) {
		e.stats.bypassAsked.Inc()
		return load(ctx)
	}
	if db.InTransaction(ctx) {
		e.stats.bypassTransaction.Inc()
		return load(ctx)
	}
	n := name{e.kind, id}
	now := clock()
	if !e.c.group(n).lease.valid(now) {
		return e.fetch(ctx, n, e.c.local.generation(n), load)
	}
	if found, ok := e.c.local.get(n, now.mono); ok {
		e.stats.hitProcess.Inc()
		return e.serve(ctx, found, id, load)
	}
	return e.join(ctx, n, load)
}

// serve returns an in-process entry, and has it checked now and then.
func (e *Entity[T]) serve(ctx context.Context, found entry, id string, load func(ctx context.Context) (T, error)) (T, error) {
	value, ok := found.value.(T)
	if !ok && !found.missing {
		return load(ctx) // declared twice, with another type
	}
	if e.c.sampler.wanted.Load() {
		e.sample(id, value, found.missing, load)
	}
	if found.missing {
		return value, e.opts.NotFound
	}
	return value, nil
}

// join shares a fetch between the readers of one generation. The lease was valid after this reader began: whatever was
// acknowledged before has changed the generation, so a fetch of the same generation began later than that.
func (e *Entity[T]) join(ctx context.Context, n name, load func(ctx context.Context) (T, error)) (T, error) {
	gen := e.c.local.generation(n)
	flight := e.c.flights.DoChan(fmt.Sprintf("%s:%s:%d", n.kind, n.id, gen), func() (value any, err error) {
		defer func() {
			if r := recover(); r != nil { // on a goroutine of its own it would end the process
				err = fmt.Errorf("load %s: panic: %v", e.kind, r)
			}
		}()
		shared, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
		defer cancel()
		return e.fetch(shared, n, gen, load)
	})
	select {
	case r := <-flight:
		value, _ := r.Val.(T)
		return value, r.Err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// fetch reads from Redis or PostgreSQL, and fills what lies nearer.
func (e *Entity[T]) fetch(ctx context.Context, n name, gen uint64, load func(ctx context.Context) (T, error)) (T, error) {
	r := &read{c: e.c, name: n, shape: e.shape, stats: e.stats}
	if e.opts.Direct {
		if value, ok, err := e.lookup(ctx, r, gen); ok {
			return value, err
		}
	} else if e.c.shared != nil {
		ctx = context.WithValue(ctx, readKey{}, r)
	}
	faults.at("before load")
	value, err := load(ctx)
	faults.at("after load")
	missing := e.opts.NotFound != nil && errors.Is(err, e.opts.NotFound)
	if err != nil && !missing {
		r.release(ctx)
		return value, err
	}
	if !r.hit {
		e.stats.misses.Inc()
	}
	e.keep(n, gen, value, missing, r.born)
	if missing {
		r.fill(ctx, "", true)
	} else if e.opts.Direct {
		if body, jerr := json.Marshal(value); jerr == nil {
			r.fill(ctx, string(body), false)
		}
	}
	return value, err
}

// lookup reads Redis for an entity that is stored there in T's JSON form.
func (e *Entity[T]) lookup(ctx context.Context, r *read, gen uint64) (value T, ok bool, err error) {
	body, missing, ok := r.lookup(ctx)
	if !ok {
		return value, false, nil
	}
	if missing {
		e.keep(r.name, gen, value, true, r.born)
		return value, true, e.opts.NotFound
	}
	if json.Unmarshal([]byte(body), &value) != nil {
		var none T
		r.hit = false
		return none, false, nil //nolint:nilerr // a miss
	}
	e.keep(r.name, gen, value, false, r.born)
	return value, true, nil
}

// keep puts a value into the in-process tier, where it lives no longer than if it had been there since it was born.
func (e *Entity[T]) keep(n name, gen uint64, value T, missing bool, born time.Time) {
	if e.c.cfg.Entries == 0 {
		return
	}
	faults.at("before keep")
	ttl := e.c.lifetime(missing)
	if !born.IsZero() {
		ttl -= max(0, time.Since(born))
	}
	kept := entry{missing: missing, expires: clock().mono + ttl}
	if !missing {
		kept.value = value
	}
	kept.size = sizeOf(kept.value) + int64(len(n.id))
	if !e.c.local.put(n, gen, kept) {
		e.stats.rejectedProcess.Inc()
	}
}

// lifetime returns the configured time to live, up to 10 % shorter, so that what was filled together does not expire
// together.
func (c *Cache) lifetime(missing bool) time.Duration {
	d := c.cfg.TTL
	if missing {
		d = c.cfg.NegativeTTL
	}
	return d - rand.N(d/10+1) //nolint:gosec // no secret
}

package cache

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/strata-accounts/strata/platform/db"
)

// Options describe one kind of entity.
type Options struct {
	// Bounded lets a write be acknowledged while Redis fails, when readers may see the state before it for up to one
	// second. Without it the acknowledgement waits for that second.
	Bounded bool
	// NotFound is what a load returns where there is no such entity. Where it is nil, that is not cached.
	NotFound error
	// Same reports whether a value of the entity's type that was served may stand for the stored one, when hits are
	// compared with PostgreSQL. Where it is nil, their JSON forms must be equal.
	Same func(served, stored any) bool
}

// A Load reads an entity by its id from PostgreSQL. The context that it gets must be used for its query.
type Load[T any] func(ctx context.Context, id ID) (T, error)

// ByUUID makes a Load of a read that takes the id as a UUID.
func ByUUID[T any](read func(ctx context.Context, id uuid.UUID) (T, error)) Load[T] {
	return func(ctx context.Context, id ID) (T, error) { return read(ctx, id.UUID()) }
}

// Entity reads one kind of entity. T must survive being shared: a caller changes neither the value nor what it points
// to.
type Entity[T any] struct {
	c       *Cache
	kind    string
	opts    Options
	load    Load[T]
	stats   *kindMetrics
	flights flights[T]

	shape   string // of what Redis holds
	decode  func(id ID, packed string) (T, error)
	plugged bool // the load's query fills Redis, through Plugin

	checkDue *atomic.Bool // the next hit is to be compared with PostgreSQL

	leads func(T) string
	led   *lru.Cache[ID, name]
}

// For declares a kind, such as "user", of which Redis holds the members of T. The kind must be the one that the
// table's trigger notes, and hold no colon.
func For[T any](c *Cache, kind string, opts Options, load Load[T]) *Entity[T] {
	return declare(c, kind, opts, load, func(_ ID, value T) T { return value })
}

// Rows is For where the load is one GORM query that takes a Row, which may be a slice, and makes a T of it with from.
// Redis then holds the members of what the query has found: Plugin stores it there.
func Rows[T, Row any](c *Cache, kind string, opts Options, load Load[T], from func(id ID, row Row) T) *Entity[T] {
	e := declare(c, kind, opts, load, from)
	e.plugged = true
	return e
}

func declare[T, Stored any](c *Cache, kind string, opts Options, load Load[T], from func(id ID, stored Stored) T) *Entity[T] {
	if opts.Bounded {
		c.bounded.Store(kind, true)
	}
	e := &Entity[T]{
		c: c, kind: kind, opts: opts, load: load, checkDue: &atomic.Bool{}, stats: c.metrics.kind(kind), shape: shape(reflect.TypeFor[Stored]()),
		decode: func(id ID, packed string) (value T, err error) {
			var stored Stored
			if err := unpack(packed, reflect.ValueOf(&stored)); err != nil {
				return value, err
			}
			return from(id, stored), nil
		},
	}
	c.due.Store(kind, e.checkDue)
	return e
}

// Key returns the key under which Touch knows an entity.
func (e *Entity[T]) Key(id ID) string { return name{e.kind, id}.String() }

// Get returns the entity from the nearest tier that may be believed, or else from its load. A read in a transaction, or
// with WithBypass, is the load alone.
//
// Errors: the load's, Options.NotFound also from memory; errs.ErrCanceled and errs.ErrTimeout when ctx ends first. Never
// one of Redis'.
func (e *Entity[T]) Get(ctx context.Context, id ID) (T, error) {
	if e.c.bypassed(ctx) {
		e.stats.bypassAsked.Inc()
		return e.load(ctx, id)
	}
	if db.InTransaction(ctx) {
		e.stats.bypassTransaction.Inc()
		return e.load(ctx, id)
	}
	n := name{e.kind, id}
	now := clock()
	if !e.c.group(n).lease.valid(now) {
		return e.fetch(ctx, n, e.c.local.generation(n))
	}
	if found, ok := e.c.local.get(n, now.mono); ok {
		e.stats.hitProcess.Inc()
		return e.serve(ctx, found, id)
	}
	return e.join(ctx, n)
}

// serve returns an in-process entry, and has it checked now and then.
func (e *Entity[T]) serve(ctx context.Context, found entry, id ID) (T, error) {
	missing := found.value == nil
	var value T
	if at, ok := found.value.(*T); ok {
		value = *at
	} else if !missing {
		return e.load(ctx, id) // declared twice, with another type
	}
	if e.checkDue.Load() {
		e.sample(id, value, missing)
	}
	if missing {
		return value, e.opts.NotFound
	}
	return value, nil
}

// fetch reads from Redis or PostgreSQL, and fills what lies nearer.
func (e *Entity[T]) fetch(ctx context.Context, n name, gen uint64) (T, error) {
	r := &read{c: e.c, name: n, gen: gen, next: e.next(n.id), shape: e.shape, stats: e.stats}
	if e.c.shared != nil {
		value, ok, err := e.ask(ctx, r)
		if ok {
			e.sample(n.id, value, err != nil)
			return value, err
		}
		if e.plugged {
			ctx = context.WithValue(ctx, readKey{}, r)
		}
	}
	faults.at("before load")
	value, err := e.load(ctx, n.id)
	faults.at("after load")
	missing := e.opts.NotFound != nil && errors.Is(err, e.opts.NotFound)
	if err != nil && !missing {
		r.release(ctx)
		return value, err
	}
	if r.hit {
		e.sample(n.id, value, missing)
	} else {
		e.stats.misses.Inc()
	}
	e.keep(n, gen, value, missing, r.born)
	if missing {
		r.fill(ctx, nil, true)
		return value, err
	}
	e.note(n.id, value)
	if !e.plugged {
		r.fill(ctx, value, false)
	}
	r.release(ctx) // where the load did not have the query that it was declared with
	return value, err
}

// ask looks into Redis; err is that of Get. While another reader fills the key, a query that has the plugin asks again by
// itself.
func (e *Entity[T]) ask(ctx context.Context, r *read) (value T, ok bool, err error) {
	body, missing, ok := r.ask(ctx)
	if !ok && !e.plugged {
		body, missing, ok = r.askAgain(ctx)
	}
	if !ok {
		return value, false, nil
	}
	if missing {
		e.keep(r.name, r.gen, value, true, r.born)
		return value, true, e.opts.NotFound
	}
	if value, err = e.decode(r.name.id, body); err != nil {
		r.hit = false
		return value, false, nil //nolint:nilerr // a miss
	}
	e.note(r.name.id, value)
	e.keep(r.name, r.gen, value, false, r.born)
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
	added := &node{name: n}
	if !missing {
		added = newNode(n, value)
	}
	added.expires = clock().mono + ttl
	added.size = sizeOf(added.value) + int64(len(n.id.packed))
	if !e.c.local.put(added, gen) {
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

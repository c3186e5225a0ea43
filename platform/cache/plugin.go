package cache

import (
	"context"
	"encoding/json"
	"reflect"

	"github.com/go-gorm/caches/v4"
	"gorm.io/gorm"

	"github.com/strata-accounts/strata/platform/db"
)

// Plugin returns the GORM plugin through which the reads of Entity.Get reach Redis. Of the queries that run with the
// context Get gives to load, the first one is answered from Redis or stored there; the key is the entity's, never one
// made of SQL. Every other query, and each one in a transaction, passes by untouched.
//
// Its own query coalescing stays off: it answers followers of a query that found nothing with an empty row. Its
// Invalidate does nothing: it has no key, and runs before COMMIT.
func Plugin() gorm.Plugin {
	return &plugin{caches.Caches{Conf: &caches.Config{Cacher: cacher{}}}}
}

// plugin leads only the reads of Entity.Get through caches.Caches, which renders each query with its arguments as a key,
// whether or not anything is stored under it.
type plugin struct{ caches.Caches }

// Initialize implements gorm.Plugin.
func (p *plugin) Initialize(d *gorm.DB) error {
	query := d.Callback().Query()
	plain := query.Get("gorm:query")
	if err := p.Caches.Initialize(d); err != nil {
		return err
	}
	cached := query.Get("gorm:query")
	return query.Replace("gorm:query", func(d *gorm.DB) {
		if readFrom(d.Statement.Context) == nil {
			plain(d)
			return
		}
		cached(d)
	})
}

// cacher implements caches.Cacher. It never fails a query: a failure of the store is a miss.
type cacher struct{}

// Get answers a query from Redis. A stored absence is reported as GORM reports one.
func (cacher) Get(ctx context.Context, _ string, q *caches.Query[any]) (*caches.Query[any], error) {
	r := readFrom(ctx)
	if r == nil || r.used {
		return nil, nil //nolint:nilnil // the plugin's word for a miss
	}
	r.shape = shape(reflect.TypeOf(q.Dest)) // the row's, where r was made for what the load makes of it
	body, missing, ok := r.lookup(ctx)
	switch {
	case !ok:
		return nil, nil //nolint:nilnil // as above
	case missing:
		return nil, gorm.ErrRecordNotFound // the plugin adds it to the statement, and GORM asks PostgreSQL no more
	}
	if q.Unmarshal([]byte(body)) != nil {
		r.hit = false
		return nil, nil //nolint:nilerr,nilnil // as above
	}
	return q, nil
}

// Store fills Redis with a query's result, if the query holds the lease for it.
func (cacher) Store(ctx context.Context, _ string, q *caches.Query[any]) error {
	r := readFrom(ctx)
	if r == nil || r.claim.lease == "" {
		return nil
	}
	body, err := json.Marshal(q)
	if err != nil {
		return nil //nolint:nilerr // not cacheable
	}
	r.fill(ctx, string(body), false)
	return nil
}

// Invalidate does nothing; see Plugin.
func (cacher) Invalidate(context.Context) error { return nil }

func readFrom(ctx context.Context) *read {
	r, _ := ctx.Value(readKey{}).(*read)
	if r == nil || db.InTransaction(ctx) {
		return nil
	}
	return r
}

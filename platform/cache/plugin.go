package cache

import (
	"context"
	"reflect"

	"github.com/go-gorm/caches/v4"
	"gorm.io/gorm"

	"github.com/strata-accounts/strata/platform/db"
)

// Plugin returns the GORM plugin through which the loads of Rows reach Redis. Of the queries that run with the context
// that Entity.Get gives to a load, the first one is stored there, or answered from there when another reader was just
// about to store it; the key is the entity's, never one made of SQL. Every other query, and each one in a transaction,
// passes by untouched. Before GORM has built any SQL, Get itself has asked Redis once.
//
// The plugin's own query coalescing stays off: it answers followers of a query that found nothing with an empty row. Its
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
		if readFrom(d.Statement.Context, d.Statement.Dest) == nil {
			plain(d)
			return
		}
		cached(d)
	})
}

// cacher implements caches.Cacher. It never fails a query: a failure of the store is a miss.
type cacher struct{}

// Get answers a query from Redis, if another reader fills the key in time. An absence is reported as GORM reports one.
func (cacher) Get(ctx context.Context, _ string, q *caches.Query[any]) (*caches.Query[any], error) {
	r := readFrom(ctx, q.Dest)
	if r == nil {
		return nil, nil //nolint:nilnil // the plugin's word for a miss
	}
	body, missing, ok := r.askAgain(ctx)
	switch {
	case !ok:
		return nil, nil //nolint:nilnil // as above
	case missing:
		return nil, gorm.ErrRecordNotFound // the plugin adds it to the statement, and GORM asks PostgreSQL no more
	}
	if unpack(body, reflect.ValueOf(q.Dest)) != nil {
		r.hit = false
		return nil, nil //nolint:nilerr,nilnil // as above
	}
	q.RowsAffected = 1
	if rows := reflect.Indirect(reflect.ValueOf(q.Dest)); rows.Kind() == reflect.Slice {
		q.RowsAffected = int64(rows.Len())
	}
	return q, nil
}

// Store fills Redis with a query's result, if the query holds the lease for it.
func (cacher) Store(ctx context.Context, _ string, q *caches.Query[any]) error {
	if r := readFrom(ctx, q.Dest); r != nil {
		r.fill(ctx, q.Dest, false)
	}
	return nil
}

// Invalidate does nothing; see Plugin.
func (cacher) Invalidate(context.Context) error { return nil }

// readFrom returns the read that a query is the load of; nil where it is no load's, or takes another row than declared.
func readFrom(ctx context.Context, dest any) *read {
	r, _ := ctx.Value(readKey{}).(*read)
	if r == nil || db.InTransaction(ctx) {
		return nil
	}
	if t := reflect.TypeOf(dest); t.Kind() != reflect.Pointer || shape(t.Elem()) != r.shape {
		return nil
	}
	return r
}

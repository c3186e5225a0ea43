package db

import (
	"context"
	"database/sql"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/strata-accounts/strata/platform/errs"
)

// bounded is the pool with a limit on the wait for a connection: database/sql waits for as long as the context lives.
// There are as many permits as connections. A statement takes one before it asks database/sql for a connection, and pgx
// reports when the statement has ended, its rows read or closed; a transaction holds one from before BEGIN to its end.
type bounded struct {
	*sql.DB
	permits chan struct{}
	idle    *idleLimit
	wait    time.Duration
	waited  atomic.Int64 // calls that found no permit free
	refused atomic.Int64 // calls that gave up
	lately  atomic.Int64 // when one last did, in Unix nanoseconds
}

func newBounded(pool *sql.DB, cfg Config) *bounded {
	return &bounded{
		DB: pool, permits: make(chan struct{}, cfg.MaxOpen), idle: newIdleLimit(pool, cfg.MaxIdle), wait: cfg.AcquireTimeout,
	}
}

// exhaustedFor is how long a pool counts as exhausted after a call has given up waiting.
const exhaustedFor = 5 * time.Second

// Exhausted reports with errs.ErrBusy that every connection is in use, and that calls have lately waited in vain for one:
// a pool that is merely full does its work.
func (d *DB) Exhausted(context.Context) error {
	if len(d.pool.permits) == cap(d.pool.permits) && time.Since(time.Unix(0, d.pool.lately.Load())) < exhaustedFor {
		return errs.ErrBusy
	}
	return nil
}

// Conn is a connection that its holder keeps, with what that takes from the pool.
type Conn struct {
	*sql.Conn
	permit *permit
}

// Close gives the connection back to the pool.
func (c *Conn) Close() error {
	defer c.permit.release()
	return c.Conn.Close()
}

// Conn takes a connection out of the pool, for what must stay on one. Errors: those of a wait, errs.ErrUnavailable.
func (d *DB) Conn(ctx context.Context) (*Conn, error) {
	p, err := d.pool.acquire(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := d.sql.Conn(ctx)
	if err != nil {
		p.release()
		return nil, Translate(err, nil)
	}
	return &Conn{conn, p}, nil
}

// Collectors are the metrics that sql.DBStats lacks: it never sees a call wait, because the permits are taken first.
func (d *DB) Collectors() []prometheus.Collector {
	counter := func(name, help string, n *atomic.Int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "strata", Subsystem: "pool", Name: name, Help: help},
			func() float64 { return float64(n.Load()) })
	}
	return []prometheus.Collector{
		counter("waits_total", "Calls that found no connection free.", &d.pool.waited),
		counter("refusals_total", "Calls that gave up waiting for a connection.", &d.pool.refused),
	}
}

// tries is how many connections a statement is tried on where PostgreSQL closed a pooled one and has not seen the
// statement: after a restart, the pool is full of those.
const tries = 3

// retry calls do until it succeeds, or fails on a connection that worked.
func retry[T any](do func() (T, error)) (v T, err error) {
	for range tries {
		if v, err = do(); err == nil || !pgconn.SafeToRetry(err) {
			break
		}
	}
	return v, err
}

// ExecContext implements Querier.
func (b *bounded) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return retry(func() (sql.Result, error) {
		p, err := b.acquire(ctx)
		if err != nil {
			return nil, err
		}
		defer p.release()
		return b.DB.ExecContext(ctx, query, args...)
	})
}

// QueryContext implements Querier.
func (b *bounded) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return retry(func() (*sql.Rows, error) {
		p, err := b.acquire(ctx)
		if err != nil {
			return nil, err
		}
		rows, err := b.DB.QueryContext(context.WithValue(ctx, permitKey{}, p), query, args...)
		if err != nil {
			p.release() // it may not have got as far as a connection
		}
		return rows, err
	})
}

// QueryRowContext implements Querier.
func (b *bounded) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	row, _ := retry(func() (*sql.Row, error) {
		p, err := b.acquire(ctx)
		if err != nil {
			return b.DB.QueryRowContext(ended{ctx, err}, query, args...), err // the only way to a Row that holds an error
		}
		row := b.DB.QueryRowContext(context.WithValue(ctx, permitKey{}, p), query, args...)
		if row.Err() != nil {
			p.release()
		}
		return row, row.Err()
	})
	return row
}

// acquire takes a permit. Errors: errs.ErrBusy, errs.ErrCanceled, errs.ErrTimeout.
func (b *bounded) acquire(ctx context.Context) (*permit, error) {
	p := &permit{from: b.permits}
	select {
	case b.permits <- struct{}{}:
		b.idle.used(len(b.permits))
		return p, nil
	default:
	}
	b.waited.Add(1)
	b.idle.used(cap(b.permits))
	timer := time.NewTimer(b.wait)
	defer timer.Stop()
	select {
	case b.permits <- struct{}{}:
		return p, nil
	case <-ctx.Done():
		return nil, Translate(ctx.Err(), nil)
	case <-timer.C:
		b.refused.Add(1)
		b.lately.Store(time.Now().UnixNano())
		return nil, errs.ErrBusy
	}
}

// permit is the right to a connection.
type permit struct {
	from     chan struct{}
	returned atomic.Bool
}

type permitKey struct{}

// release gives the permit back, once.
func (p *permit) release() {
	if p.returned.CompareAndSwap(false, true) {
		<-p.from
	}
}

// released gives a statement's permit back when pgx has ended it.
type released struct{}

// TraceQueryStart implements pgx.QueryTracer.
func (released) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (released) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	if p, ok := ctx.Value(permitKey{}).(*permit); ok {
		p.release()
	}
}

// ended is a context that is over because of err.
type ended struct {
	context.Context
	err error
}

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (ended) Done() <-chan struct{} { return closed }
func (e ended) Err() error          { return e.err }

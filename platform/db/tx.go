package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/strata-accounts/strata/platform/errs"
)

// tx is the transaction that a context carries.
type tx struct {
	sql           *sql.Tx
	afterCommit   []func(context.Context)
	afterRollback []func(context.Context)
}

type txKey struct{}

func txFrom(ctx context.Context) *tx {
	t, _ := ctx.Value(txKey{}).(*tx)
	return t
}

// InTransaction reports whether ctx carries a transaction.
func InTransaction(ctx context.Context) bool { return txFrom(ctx) != nil }

// TxOption changes how InTx opens a transaction. A nested InTx, which joins the outer one, ignores its options.
type TxOption func(*txOptions)

type txOptions struct {
	timeout  time.Duration
	readOnly bool
}

// ReadOnly opens a read-only transaction: PostgreSQL refuses every write in it.
func ReadOnly() TxOption { return func(o *txOptions) { o.readOnly = true } }

// Timeout sets the transaction's deadline in place of Config.TxTimeout. It bounds how long row locks are held.
func Timeout(d time.Duration) TxOption { return func(o *txOptions) { o.timeout = d } }

// InTx runs fn in a transaction that the context given to fn carries: Querier, Gorm and nested calls of InTx with that
// context use it. It commits when fn returns nil, and rolls back when fn fails or panics. A transaction that outlives its
// deadline is rolled back.
//
// Errors: what fn returns; errs.ErrBusy when no connection was free in time; errs.ErrTimeout past the deadline;
// errs.ErrCanceled where ctx was canceled; errs.ErrUnavailable when PostgreSQL is gone, also where the outcome of COMMIT is
// unknown.
func (d *DB) InTx(ctx context.Context, fn func(ctx context.Context) error, opts ...TxOption) error {
	if InTransaction(ctx) {
		return fn(ctx)
	}
	o := txOptions{timeout: d.cfg.TxTimeout}
	for _, opt := range opts {
		opt(&o)
	}
	txCtx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	p, err := d.pool.acquire(txCtx)
	if err != nil {
		return err
	}
	defer p.release()
	t := &tx{}
	if t.sql, err = retry(func() (*sql.Tx, error) {
		return d.sql.BeginTx(txCtx, &sql.TxOptions{ReadOnly: o.readOnly})
	}); err != nil {
		return Translate(fmt.Errorf("begin: %w", err), nil)
	}
	outside := context.WithoutCancel(ctx)
	committed := false
	defer func() {
		if committed {
			return
		}
		_ = t.sql.Rollback() // no-op after a failed COMMIT
		for _, f := range t.afterRollback {
			f(outside)
		}
	}()
	inside := context.WithValue(txCtx, txKey{}, t)
	if err := fn(inside); err != nil {
		if txCtx.Err() != nil && ctx.Err() == nil {
			return errs.ErrTimeout.Wrap(err)
		}
		return err
	}
	if err := t.commit(inside, o.readOnly); err != nil {
		return err
	}
	committed = true
	p.release() // what follows may wait for other instances, not for this connection
	for _, f := range t.afterCommit {
		f(outside)
	}
	return nil
}

// commit ends the transaction that ctx carries, after what WithCommit has added to it.
func (t *tx) commit(ctx context.Context, readOnly bool) error {
	if last, ok := ctx.Value(commitKey{}).(func(context.Context) error); ok && !readOnly {
		if err := last(ctx); err != nil {
			return err
		}
	}
	if beforeCommit != nil && len(t.afterCommit) > 0 {
		if err := beforeCommit(); err != nil {
			return err
		}
	}
	err := t.sql.Commit()
	if err == nil {
		return nil
	}
	switch cause := ctx.Err(); {
	case errors.Is(cause, context.DeadlineExceeded):
		return errs.ErrTimeout.Wrap(err)
	case cause != nil && errors.Is(err, sql.ErrTxDone): // database/sql has rolled back, since the caller has gone
		return errs.ErrCanceled.Wrap(err)
	}
	return Translate(fmt.Errorf("commit: %w", err), nil)
}

type commitKey struct{}

// WithCommit returns a context whose transactions, but for read-only ones, run fn as the last thing before COMMIT, and roll
// back where it fails: what fn writes is there exactly if their writes are.
func WithCommit(ctx context.Context, fn func(ctx context.Context) error) context.Context {
	return context.WithValue(ctx, commitKey{}, fn)
}

// Aside returns a context whose transactions are not what the request is for: what WithCommit adds does not run in them.
func Aside(ctx context.Context) context.Context { return context.WithValue(ctx, commitKey{}, nil) }

// InBatches calls remove, which removes a bounded number of rows in a transaction of its own and returns how many, until
// none is left, and returns their sum. Errors: remove's.
func InBatches(remove func() (int64, error)) (total int64, err error) {
	for n := int64(1); n > 0 && err == nil; total += n {
		n, err = remove()
	}
	return total, err
}

// AfterCommit registers fn to run after COMMIT and before InTx returns, in the order of registration; outside a
// transaction it runs at once. The context that fn gets carries no transaction and is not cancelled with the request.
func AfterCommit(ctx context.Context, fn func(ctx context.Context)) {
	if t := txFrom(ctx); t != nil {
		t.afterCommit = append(t.afterCommit, fn)
		return
	}
	fn(context.WithoutCancel(ctx))
}

// AfterRollback registers fn to run after ROLLBACK, or after a COMMIT that failed: then the transaction may have been
// committed all the same. Outside a transaction it never runs.
func AfterRollback(ctx context.Context, fn func(ctx context.Context)) {
	if t := txFrom(ctx); t != nil {
		t.afterRollback = append(t.afterRollback, fn)
	}
}

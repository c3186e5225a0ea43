package db_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/db/dbtest"
	"github.com/strata-accounts/strata/platform/errs"
)

var discard = slog.New(slog.DiscardHandler)

var notes = db.Migration{Module: "notes", FS: fstest.MapFS{"00001_notes.sql": {Data: []byte(`
-- +goose Up
CREATE TABLE notes (id int PRIMARY KEY, body text CONSTRAINT notes_body CHECK (body <> ''));
-- +goose Down
DROP TABLE notes;
`)}}}

func TestInTx(t *testing.T) {
	d := dbtest.Open(t, notes)
	insert := func(ctx context.Context, id int) error {
		_, err := d.Querier(ctx).ExecContext(ctx, `INSERT INTO notes VALUES ($1, 'x')`, id)
		return err
	}
	insertGorm := func(ctx context.Context, id int) error {
		return d.Gorm(ctx).Exec(`INSERT INTO notes VALUES (?, 'x')`, id).Error
	}
	failure := errors.New("failure")
	for _, tt := range []struct {
		name string
		fn   func(ctx context.Context) error
		err  error
		rows int
	}{
		{"commits", func(ctx context.Context) error { return errors.Join(insert(ctx, 1), insertGorm(ctx, 2)) }, nil, 2},
		{"rolls both kinds of SQL back", func(ctx context.Context) error {
			return errors.Join(insert(ctx, 1), insertGorm(ctx, 2), failure)
		}, failure, 0},
		{"joins a nested call", func(ctx context.Context) error {
			if err := d.InTx(ctx, func(ctx context.Context) error { return insert(ctx, 1) }); err != nil {
				return err
			}
			return failure
		}, failure, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := t.Context()
			if _, err := d.SQL().ExecContext(ctx, `TRUNCATE notes`); err != nil {
				t.Fatal(err)
			}
			if err := d.InTx(ctx, tt.fn); !errors.Is(err, tt.err) {
				t.Fatalf("InTx: %v, want %v", err, tt.err)
			}
			if got := count(t, d); got != tt.rows {
				t.Errorf("%d rows, want %d", got, tt.rows)
			}
		})
	}
}

func count(t *testing.T, d *db.DB) (n int) {
	t.Helper()
	if err := d.Querier(t.Context()).QueryRowContext(t.Context(), `SELECT count(*) FROM notes`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestInTxPanicRollsBack(t *testing.T) {
	d := dbtest.Open(t, notes)
	rolledBack := false
	func() {
		defer func() { _ = recover() }()
		_ = d.InTx(t.Context(), func(ctx context.Context) error {
			db.AfterRollback(ctx, func(context.Context) { rolledBack = true })
			if _, err := d.Querier(ctx).ExecContext(ctx, `INSERT INTO notes VALUES (1, 'x')`); err != nil {
				t.Error(err)
			}
			panic("defect")
		})
	}()
	if n := count(t, d); n != 0 || !rolledBack {
		t.Errorf("%d rows after a panic, AfterRollback ran: %t", n, rolledBack)
	}
	if inUse := d.SQL().Stats().InUse; inUse != 0 {
		t.Errorf("%d connections are still in use", inUse)
	}
}

func TestAfterCommit(t *testing.T) {
	d := dbtest.Open(t, notes)
	var ran []string
	note := func(s string) func(context.Context) {
		return func(ctx context.Context) {
			if db.InTransaction(ctx) || ctx.Err() != nil {
				t.Errorf("%s: in a transaction %t, context %v", s, db.InTransaction(ctx), ctx.Err())
			}
			ran = append(ran, fmt.Sprintf("%s with %d rows", s, count(t, d)))
		}
	}
	write := func(fail error) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		return d.InTx(ctx, func(ctx context.Context) error {
			db.AfterCommit(ctx, note("commit"))
			db.AfterRollback(ctx, note("rollback"))
			if _, err := d.Querier(ctx).ExecContext(ctx, `INSERT INTO notes VALUES ($1, 'x')`, len(ran)); err != nil {
				return err
			}
			return fail
		})
	}
	_ = write(errors.New("failure"))
	if err := write(nil); err != nil {
		t.Fatal(err)
	}
	db.AfterCommit(t.Context(), note("outside"))
	want := []string{"rollback with 0 rows", "commit with 1 rows", "outside with 1 rows"}
	if fmt.Sprint(ran) != fmt.Sprint(want) {
		t.Errorf("ran %q, want %q", ran, want)
	}
}

// TestCanceledBeforeCommit: database/sql rolls back by itself when the caller goes away, and says of the COMMIT only that it
// came too late.
func TestCanceledBeforeCommit(t *testing.T) {
	d := dbtest.Open(t, notes)
	ctx, cancel := context.WithCancel(t.Context())
	err := d.InTx(ctx, func(ctx context.Context) error {
		cancel()
		for rolledBack := false; !rolledBack; {
			_, err := d.Querier(ctx).ExecContext(t.Context(), `SELECT 1`)
			rolledBack = err != nil
		}
		return nil
	})
	if errs.KindOf(err) != errs.Canceled {
		t.Errorf("error is %v, want that the caller has gone", err)
	}
}

func TestDeadlineAndReadOnly(t *testing.T) {
	d := dbtest.Open(t, notes)
	sleep := func(ctx context.Context) error {
		_, err := d.Querier(ctx).ExecContext(ctx, `SELECT pg_sleep(30)`)
		return db.Translate(err, nil)
	}
	if err := d.InTx(t.Context(), sleep, db.Timeout(50*time.Millisecond)); !errors.Is(err, errs.ErrTimeout) {
		t.Errorf("a transaction over its deadline: %v", err)
	}
	err := d.InTx(t.Context(), func(ctx context.Context) error {
		_, err := d.Querier(ctx).ExecContext(ctx, `INSERT INTO notes VALUES (1, 'x')`)
		return err
	}, db.ReadOnly())
	if err == nil || count(t, d) != 0 {
		t.Error("a read-only transaction wrote")
	}
}

// TestExhaustedPool holds every connection and expects each way of asking for one to give up in time.
func TestExhaustedPool(t *testing.T) {
	d, err := db.Open(t.Context(), db.Config{
		URL: dbtest.URL(t, notes), MaxOpen: 2, MaxIdle: 1, AcquireTimeout: 100 * time.Millisecond, TxTimeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ctx := t.Context()
	release := holdConnections(t, d, 2)
	var one int
	for name, call := range map[string]func() error{
		"exec":  func() error { _, err := d.Querier(ctx).ExecContext(ctx, `SELECT 1`); return err },
		"query": func() error { _, err := d.Querier(ctx).QueryContext(ctx, `SELECT 1`); return err },
		"row":   func() error { return d.Querier(ctx).QueryRowContext(ctx, `SELECT 1`).Scan(&one) },
		"gorm":  func() error { return d.Gorm(ctx).Raw(`SELECT 1`).Scan(&one).Error },
		"tx":    func() error { return d.InTx(ctx, func(context.Context) error { return nil }) },
	} {
		if err := db.Translate(call(), nil); !errors.Is(err, errs.ErrBusy) {
			t.Errorf("%s on an exhausted pool: %v", name, err)
		}
	}
	release()
	if err := d.Health(ctx); err != nil {
		t.Errorf("after the connections were released: %v", err)
	}
}

func holdConnections(t *testing.T, d *db.DB, n int) (release func()) {
	t.Helper()
	var held []interface{ Close() error }
	conn, err := d.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	held = append(held, conn)
	for range n - 1 {
		rows, err := d.Querier(t.Context()).QueryContext(t.Context(), `SELECT 1`)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, rows)
	}
	return func() {
		for _, h := range held {
			_ = h.Close()
		}
	}
}

// TestAcquireTimeoutEndsWithTheWait reads for longer than a connection may be waited for, under one long-lived context.
func TestAcquireTimeoutEndsWithTheWait(t *testing.T) {
	d, err := db.Open(t.Context(), db.Config{
		URL: dbtest.URL(t), MaxOpen: 4, MaxIdle: 4, AcquireTimeout: 50 * time.Millisecond, TxTimeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			rows, err := d.Querier(t.Context()).QueryContext(t.Context(), `SELECT n FROM generate_series(1, 20000) n`)
			if err != nil {
				t.Error(err)
				return
			}
			defer rows.Close()
			n := 0
			for rows.Next() {
				if n++; n%10000 == 0 {
					time.Sleep(60 * time.Millisecond)
				}
			}
			if rows.Err() != nil || n != 20000 {
				t.Errorf("read %d rows: %v", n, rows.Err())
			}
		})
	}
	wg.Wait()
	for range 1000 {
		if err := d.Health(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	if n := runtime.NumGoroutine(); n > 100 {
		t.Errorf("%d goroutines are left of 1,000 queries", n)
	}
}

// TestClosedConnections has PostgreSQL close the pooled connection before each use.
func TestClosedConnections(t *testing.T) {
	d, killer := dbtest.Open(t), dbtest.Open(t)
	nothing := func(context.Context) error { return nil }
	for name, use := range map[string]func() error{
		"query": func() error { return d.Health(t.Context()) },
		"tx":    func() error { return d.InTx(t.Context(), nothing) },
	} {
		for range 20 {
			var pid int
			if err := d.Querier(t.Context()).QueryRowContext(t.Context(), `SELECT pg_backend_pid()`).Scan(&pid); err != nil {
				t.Fatal(err)
			}
			if _, err := killer.SQL().ExecContext(t.Context(), `SELECT pg_terminate_backend($1, 5000)`, pid); err != nil {
				t.Fatal(err)
			}
			if err := use(); err != nil {
				t.Fatalf("%s on a closed connection: %v", name, err)
			}
		}
	}
}

func TestTranslate(t *testing.T) {
	d := dbtest.Open(t, notes)
	ctx := t.Context()
	empty := errs.New(errs.Invalid, "empty_body", "empty")
	constraints := map[string]*errs.Error{"notes_body": empty}
	_, err := d.Querier(ctx).ExecContext(ctx, `INSERT INTO notes VALUES (1, '')`)
	if !errors.Is(db.Translate(err, constraints), empty) {
		t.Errorf("a named constraint: %v", db.Translate(err, constraints))
	}
	err = d.Gorm(ctx).Exec(`INSERT INTO notes VALUES (1, '')`).Error
	if !errors.Is(db.Translate(err, constraints), empty) {
		t.Errorf("a named constraint through GORM: %v", db.Translate(err, constraints))
	}
	var id int
	err = d.Querier(ctx).QueryRowContext(ctx, `SELECT id FROM notes`).Scan(&id)
	if !db.IsNoRows(db.Translate(err, nil)) {
		t.Errorf("no rows: %v", err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err = d.Querier(canceled).ExecContext(canceled, `SELECT 1`); !errors.Is(db.Translate(err, nil), errs.ErrCanceled) {
		t.Errorf("a caller that went away: %v", err)
	}
	_, err = db.Open(ctx, db.Config{URL: "postgres://nobody:secret@127.0.0.1:1/none", MaxOpen: 1, AcquireTimeout: time.Second})
	if errs.KindOf(err) != errs.Unavailable {
		t.Errorf("an unreachable server: %v", err)
	}
}

// TestMigrateTogether starts several instances at once on an empty database.
func TestMigrateTogether(t *testing.T) {
	d := dbtest.Open(t)
	if n, err := db.Pending(t.Context(), d, notes); err != nil || n != 1 {
		t.Fatalf("%d pending, %v", n, err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := db.Migrate(t.Context(), d, discard, notes); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n, err := db.Pending(t.Context(), d, notes); err != nil || n != 0 {
		t.Errorf("%d pending, %v", n, err)
	}
}

// TestIdleConnectionsFollowLoad holds the pool to keeping connections that a load needs, and to giving them back after.
func TestIdleConnectionsFollowLoad(t *testing.T) {
	const busy, idle = 8, 2
	d, err := db.Open(t.Context(), db.Config{
		URL: dbtest.URL(t), MaxOpen: busy, MaxIdle: idle, AcquireTimeout: time.Minute, TxTimeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	for range 2 {
		all := make([]*db.Conn, busy)
		for i := range all {
			if all[i], err = d.Conn(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range all {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if stats := d.SQL().Stats(); stats.MaxIdleClosed != 0 || stats.Idle != busy {
		t.Errorf("under load %d connections were closed and %d are idle, want 0 and %d", stats.MaxIdleClosed, stats.Idle, busy)
	}
	db.DecayIdle(d) // the window of the load
	db.DecayIdle(d) // a quiet one
	if got := d.SQL().Stats().Idle; got != idle {
		t.Errorf("%d connections are idle after the load, want %d", got, idle)
	}
}

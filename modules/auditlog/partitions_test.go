package auditlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestAppendOnly tries every way to change what was recorded, as the tables' owner and with ordinary statements.
func TestAppendOnly(t *testing.T) {
	t.Parallel()
	l := openLog(t, 100)
	e := l.record(t, 3)[0]
	l.sealAll(t)
	partition := e.OccurredAt.UTC().Format(partitionName)
	for _, statement := range []string{
		`UPDATE audit_events SET action = 'x.y'`,
		`UPDATE ` + partition + ` SET action = 'x.y'`,
		`UPDATE audit_events SET action = action WHERE id = ` + quote(e),
		`DELETE FROM audit_events WHERE id = ` + quote(e),
		`DELETE FROM ` + partition,
		`TRUNCATE audit_events`,
		`TRUNCATE ` + partition,
		`TRUNCATE audit_events_default`,
		`INSERT INTO audit_events (id, action, actor_type, occurred_at) VALUES (gen_random_uuid(), 'a.b', 'user', now() - interval '1 day')`,
		`INSERT INTO audit_events (id, action, actor_type, txid) VALUES (gen_random_uuid(), 'a.b', 'user', '3')`,
		`UPDATE audit_origins SET ip = '10.0.0.1'`,
		`UPDATE audit_leaves SET seq = seq + 1`,
		`DELETE FROM audit_leaves`,
		`TRUNCATE audit_leaves`,
		`UPDATE audit_seals SET size = size + 1`,
		`DELETE FROM audit_seals`,
		`TRUNCATE audit_seals`,
	} {
		_, err := l.db.SQL().ExecContext(t.Context(), statement)
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Code != "55000" {
			t.Errorf("%s: %v", statement, err)
		}
	}
	if r := l.verify(t); !r.Intact() {
		t.Error(r.Problems)
	}
}

func TestPartitions(t *testing.T) {
	t.Parallel()
	l := openLog(t, 100)
	ctx := t.Context()
	partitions := func() (names string) {
		t.Helper()
		err := l.db.SQL().QueryRowContext(ctx, `SELECT string_agg(inhrelid::regclass::text, ' ' ORDER BY inhrelid::regclass::text)
			FROM pg_inherits WHERE inhparent = 'audit_events'::regclass`).Scan(&names)
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	this := time.Now().UTC()
	this = this.AddDate(0, 0, 1-this.Day())
	for ahead := range partitionsAhead + 1 {
		if name := this.AddDate(0, ahead, 0).Format(partitionName); !strings.Contains(partitions(), name) {
			t.Errorf("%s is missing among %s", name, partitions())
		}
	}
	if n, err := l.AddPartitions(ctx); n != 0 || err != nil {
		t.Errorf("added %d more, %v", n, err)
	}

	// A month without a partition: what comes lands in the default one, and is moved when the job runs again.
	name := this.Format(partitionName)
	l.behind(t, `DROP TABLE `+name+`, `+this.Format("audit_origins_2006_01"))
	events := l.record(t, 20)
	errs := make(chan error, 3)
	for range 3 { // instances that come at the same time
		go func() { _, err := l.AddPartitions(ctx); errs <- err }()
	}
	for range 3 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	var moved, left int
	err := l.db.SQL().QueryRowContext(ctx, `SELECT (SELECT count(*) FROM `+name+`), (SELECT count(*) FROM audit_events_default)`).Scan(&moved, &left)
	if err != nil || moved != 20 || left != 0 {
		t.Errorf("moved %d, left %d, %v", moved, left, err)
	}
	for _, e := range events {
		if got, err := l.service.ByID(ctx, e.ID); err != nil || !same(got, e) {
			t.Errorf("after the move: %+v, %v", got, err)
		}
	}
	if _, err := l.db.SQL().ExecContext(ctx, `DELETE FROM `+name); err == nil {
		t.Error("a moved event could be deleted")
	}
	if _, err := l.db.SQL().ExecContext(ctx, `TRUNCATE `+name); err == nil {
		t.Error("the new partition could be truncated")
	}
}

func TestJobs(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "checkpoints")
	a := newAPI(t, rungs["direct"])
	a.jobs.cfg.CheckpointFile = file
	record(t, a.Service, Event{Action: "a.b", Actor: Ref{Type: System}})
	for {
		if err := a.jobs.seal(t.Context()); err != nil {
			t.Fatal(err)
		}
		if c, err := a.Log.Checkpoint(t.Context()); err == nil && c.Size == 1 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	for range 2 { // the second finds nothing new
		if err := a.jobs.ship(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	notes, err := ParseCheckpoints(append(content, content...))
	if err != nil || len(notes) != 2 || notes[0] != notes[1] {
		t.Fatalf("%q holds %d checkpoints, %v", content, len(notes), err)
	}
	if c, err := a.Log.keys.open(notes[0]); err != nil || c.Size != 1 {
		t.Errorf("shipped %+v, %v", c, err)
	}
}

// TestCounterReset makes the log look as if it came from a cluster with more transactions behind it.
func TestCounterReset(t *testing.T) {
	t.Parallel()
	l := openLog(t, 100)
	for _, want := range []bool{false, true} {
		if got, err := l.counterReset(t.Context()); got != want || err != nil {
			t.Errorf("counter reset: %t, %v, want %t", got, err, want)
		}
		l.record(t, 1)
		l.sealAll(t)
		l.behind(t, `UPDATE audit_seals SET last_txid = (pg_current_xact_id()::text::bigint + 1000000)::text::xid8`)
	}
}

// TestBlocker finds the transaction that holds up sealing.
func TestBlocker(t *testing.T) {
	t.Parallel()
	l := openLog(t, 100)
	err := l.db.InTx(t.Context(), func(ctx context.Context) error {
		if _, err := l.service.Record(ctx, Event{Action: "a.b", Actor: Ref{Type: System}}); err != nil {
			return err
		}
		l.record(t, 1)
		waited, err := l.pending(t.Context())
		if err != nil || waited == nil || *waited < 0 {
			return fmt.Errorf("pending: %v, %w", waited, err)
		}
		b, err := l.blocker(t.Context())
		if err != nil || b.pid == 0 || b.database == "" || b.age <= 0 {
			return fmt.Errorf("blocker: %+v, %w", b, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

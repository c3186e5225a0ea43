package auditlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/strata-accounts/strata/platform/db"
)

// behind runs statements as the database's owner, behind the program's back.
func (l *sealed) behind(t testing.TB, statements ...string) {
	t.Helper()
	conn, err := l.db.SQL().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, s := range append(append([]string{"BEGIN", "SET LOCAL session_replication_role = replica"}, statements...), "COMMIT") {
		if _, err := conn.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// tampered verifies the log as these statements make it, and undoes them.
func (l *sealed) tampered(t testing.TB, statements ...string) (r Report) {
	t.Helper()
	errUndo := errors.New("undo")
	err := l.db.InTx(t.Context(), func(ctx context.Context) (err error) {
		for _, s := range append([]string{"SET LOCAL session_replication_role = replica"}, statements...) {
			if _, err := l.db.Querier(ctx).ExecContext(ctx, s); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
		if r, err = l.Verify(ctx, VerifyOptions{}); err != nil {
			return err
		}
		return errUndo
	}, db.Timeout(5*time.Minute))
	if !errors.Is(err, errUndo) {
		t.Fatal(err)
	}
	return r
}

func (l *sealed) verify(t testing.TB, checkpoints ...string) Report {
	t.Helper()
	report, err := l.Verify(t.Context(), VerifyOptions{Checkpoints: checkpoints})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// fiveBatches returns a log of five batches of 300 events, more than a tile each.
func fiveBatches(t testing.TB) (*sealed, []Event) {
	t.Helper()
	l := openLog(t, 300)
	events := l.record(t, 1500)
	if l.sealAll(t); l.verify(t).Batches != 5 {
		t.Fatal("not five batches")
	}
	return l, events
}

func TestVerifyIntact(t *testing.T) {
	t.Parallel()
	l := openLog(t, 500)
	if r := l.verify(t); !r.Intact() || r.Checkpoint.Size != 0 {
		t.Errorf("empty log: %+v", r)
	}
	var kept []string
	for range 3 {
		l.record(t, 1100)
		l.sealAll(t)
		c, err := l.Checkpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, c.Note)
	}
	if err := l.service.Erase(t.Context(), "user_7"); err != nil {
		t.Fatal(err)
	}
	var progress []int64
	r, err := l.Verify(t.Context(), VerifyOptions{Checkpoints: kept, Progress: func(done, total int64) {
		if total != 3300 {
			t.Errorf("total %d", total)
		}
		progress = append(progress, done)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Intact() || r.Checkpoint.Size != 3300 || r.Checkpoint.Note != kept[2] || r.Batches != 9 || r.Erased != 3 || r.Pending != 0 {
		t.Errorf("got %+v", r)
	}
	if !slices.IsSorted(progress) || progress[len(progress)-1] != 3300 {
		t.Errorf("progress %v", progress)
	}
	l.record(t, 4)
	if r := l.verify(t); !r.Intact() || r.Pending != 4 {
		t.Errorf("with events that are not sealed: %+v", r)
	}
}

// TestVerifyTampering does each kind of harm to the third of five batches and expects it to be found there.
func TestVerifyTampering(t *testing.T) {
	t.Parallel()
	const victim, other = 700, 750 // leaves 600 to 899 are batch 3
	tests := []struct {
		name string
		harm func(e, o Event) []string
		want []Finding
	}{
		{"metadata edited", func(e, _ Event) []string {
			return []string{`UPDATE audit_events SET metadata = '{"changed":["email"]}' WHERE id = ` + quote(e)}
		}, []Finding{Edited}},
		{"metadata reformatted", func(e, _ Event) []string {
			return []string{`UPDATE audit_events SET metadata = '{"changed": ["name"]}' WHERE id = ` + quote(e)}
		}, []Finding{Edited}},
		{"actor edited", func(e, _ Event) []string {
			return []string{`UPDATE audit_events SET actor_id = 'somebody_else' WHERE id = ` + quote(e)}
		}, []Finding{Edited}},
		{"recorder edited", func(e, _ Event) []string {
			return []string{`UPDATE audit_events SET recorded_by = 'key' WHERE id = ` + quote(e)}
		}, []Finding{Edited}},
		{"date edited", func(e, _ Event) []string {
			return []string{`UPDATE audit_events SET occurred_at = occurred_at + interval '1 microsecond' WHERE id = ` + quote(e)}
		}, []Finding{Edited}},
		{"origin taken away from its event", func(e, _ Event) []string {
			return []string{`UPDATE audit_events SET origin = NULL WHERE id = ` + quote(e)}
		}, []Finding{Edited}},
		{"deleted", func(e, _ Event) []string {
			return []string{`DELETE FROM audit_events WHERE id = ` + quote(e)}
		}, []Finding{DeletedEvent}},
		{"deleted with its leaf", func(e, _ Event) []string {
			return []string{`DELETE FROM audit_events WHERE id = ` + quote(e), `DELETE FROM audit_leaves WHERE event_id = ` + quote(e)}
		}, []Finding{DeletedEvent}},
		{"inserted among sealed events", func(e, _ Event) []string {
			forged := e
			forged.ID[15]++ // next to it in the order
			return []string{`INSERT INTO audit_events (id, occurred_at, txid, action, actor_type)
				SELECT ` + quote(forged) + `, occurred_at, txid, action, actor_type FROM audit_events WHERE id = ` + quote(e)}
		}, []Finding{Inserted}},
		{"swapped", func(e, o Event) []string {
			return []string{
				`CREATE TEMP TABLE swap ON COMMIT DROP AS SELECT * FROM audit_events WHERE id IN (` + quote(e) + `, ` + quote(o) + `)`,
				`UPDATE audit_events a SET target_id = s.target_id, actor_id = s.actor_id, origin = s.origin FROM swap s
				WHERE a.id <> s.id AND a.id IN (SELECT id FROM swap)`,
			}
		}, []Finding{Edited, Edited}},
		{"leaves swapped", func(_, _ Event) []string {
			return []string{
				`UPDATE audit_leaves SET seq = -1 WHERE seq = 700`,
				`UPDATE audit_leaves SET seq = 700 WHERE seq = 750`, `UPDATE audit_leaves SET seq = 750 WHERE seq = -1`,
			}
		}, []Finding{Swapped, Swapped}},
		{"event and its stored hash edited", func(e, _ Event) []string {
			e.Action = "user.forged"
			return []string{
				`UPDATE audit_events SET action = 'user.forged' WHERE id = ` + quote(e),
				setHash(victim, e.leafHash()),
			}
		}, []Finding{RootMismatch}},
		{"a stored hash edited", func(_, _ Event) []string {
			return []string{setHash(victim, tlog.Hash{1})}
		}, []Finding{TreeDamaged}},
		{"ip edited", func(e, _ Event) []string {
			return []string{fmt.Sprintf(`UPDATE audit_origins SET ip = '10.9.9.9' WHERE hash = '\x%x'`, e.Origin)}
		}, []Finding{OriginEdited}},
		{"seal deleted", func(_, _ Event) []string {
			return []string{`DELETE FROM audit_seals WHERE batch = 2`}
		}, []Finding{SealDamaged}},
		{"seal's root edited", func(_, _ Event) []string {
			return []string{`UPDATE audit_seals SET root = set_byte(root, 0, 255 - get_byte(root, 0)) WHERE batch = 3`}
		}, []Finding{SealDamaged}},
		{"seal's checkpoint replaced by another's", func(_, _ Event) []string {
			return []string{`UPDATE audit_seals SET checkpoint = (SELECT checkpoint FROM audit_seals WHERE batch = 2) WHERE batch = 3`}
		}, []Finding{SealDamaged}},
	}
	l, events := fiveBatches(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			expect(t, l.tampered(t, test.harm(events[victim], events[other])...), 3, test.want...)
		})
	}
	if r := l.verify(t); !r.Intact() {
		t.Errorf("undone harm is still found: %v", r.Problems)
	}
}

func TestVerifyTruncation(t *testing.T) {
	t.Parallel()
	l, events := fiveBatches(t)
	c, err := l.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Run("the last events", func(t *testing.T) {
		l.behind(t, fmt.Sprintf(`DELETE FROM audit_events WHERE id >= %s`, quote(events[1490])))
		expect(t, l.verify(t), 5, slices.Repeat([]Finding{DeletedEvent}, 10)...)
	})
	t.Run("with the last seal", func(t *testing.T) {
		l.behind(t, fmt.Sprintf(`DELETE FROM audit_events WHERE id >= %s`, quote(events[1200])),
			`DELETE FROM audit_seals WHERE batch = 5`)
		expect(t, l.verify(t), 0, Truncated)
	})
	t.Run("without a trace, but for a checkpoint that was kept", func(t *testing.T) {
		l.behind(t, `DELETE FROM audit_leaves WHERE seq >= 1200`)
		if r := l.verify(t); !r.Intact() {
			t.Errorf("nothing is left to see it by: %v", r.Problems)
		}
		expect(t, l.verify(t, c.Note), 0, Truncated)
	})
	t.Run("everything", func(t *testing.T) {
		l.behind(t, `TRUNCATE audit_events, audit_leaves, audit_seals, audit_tiles`)
		expect(t, l.verify(t, c.Note), 0, Truncated)
	})
}

// TestVerifyRewrittenHistory seals another history with the right key: only a kept checkpoint tells.
func TestVerifyRewrittenHistory(t *testing.T) {
	t.Parallel()
	l, _ := fiveBatches(t)
	c, err := l.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.behind(t, `TRUNCATE audit_events, audit_leaves, audit_seals, audit_tiles`)
	l.batch = 400 // other batches than before
	l.record(t, 1600)
	l.sealAll(t)
	if r := l.verify(t); !r.Intact() {
		t.Errorf("a well-sealed history: %v", r.Problems)
	}
	expect(t, l.verify(t, c.Note), 4, HistoryChanged)
}

func TestVerifyForeignSeal(t *testing.T) {
	t.Parallel()
	l, _ := fiveBatches(t)
	forger, err := OpenKeys(KeyConfig{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	forged, err := note.Sign(&note.Note{Text: strings.SplitAfter(l.verify(t).Checkpoint.Note, "\n\n")[0][:1] + "x\n"}, forger.signer)
	if err != nil {
		t.Fatal(err)
	}
	l.behind(t, `UPDATE audit_seals SET checkpoint = '`+string(forged)+`' WHERE batch = 3`)
	expect(t, l.verify(t), 3, SealDamaged)
}

func TestVerifyBackdated(t *testing.T) {
	t.Parallel()
	l, _ := fiveBatches(t)
	l.behind(t, `INSERT INTO audit_events (id, occurred_at, action, actor_type) VALUES (gen_random_uuid(), now() - interval '2 hours', 'a.b', 'user')`)
	l.sealAll(t)
	expect(t, l.verify(t), 6, Backdated)
}

func TestRetention(t *testing.T) {
	t.Parallel()
	l := openLog(t, 300)
	ctx := t.Context()
	record := func(ctx context.Context, e Event) error { _, err := l.service.Record(ctx, e); return err }
	var months []time.Time
	for ago := 4; ago >= 1; ago-- { // 100 events in each of the last four months, as if they had been recorded then
		month := time.Now().UTC().AddDate(0, 0, 1-time.Now().UTC().Day()).AddDate(0, -ago, 0)
		months = append(months, month)
		l.behind(t, fmt.Sprintf(`SELECT audit_add_partition(parent, '%s') FROM unnest(ARRAY['audit_events', 'audit_origins']) parent`, month.Format(time.DateOnly)))
		l.behind(t, fmt.Sprintf(`INSERT INTO audit_events (id, occurred_at, action, actor_type)
			SELECT gen_random_uuid(), timestamptz '%s 12:00Z' + n * interval '1 second', 'a.b', 'user' FROM generate_series(1, 100) n`,
			month.Format(time.DateOnly)))
	}
	keep := time.Since(months[2]) // a bit more than two months: the first two are older as a whole

	if dropped, err := l.DropExpired(ctx, keep, record); dropped || err != nil {
		t.Fatalf("dropped events that were not sealed: %t, %v", dropped, err)
	}
	l.sealAll(t)
	c, err := l.Checkpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for want := range 3 {
		dropped, err := l.DropExpired(ctx, keep, record)
		if err != nil {
			t.Fatal(err)
		}
		if dropped != (want < 2) {
			t.Fatalf("call %d dropped: %t", want+1, dropped)
		}
	}
	l.sealAll(t)

	events, err := l.service.List(ctx, Filter{Action: actionDropped, Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	var metadata struct {
		Month       string
		Events      int64
		EventsTotal int64 `json:"events_total"`
	}
	if len(events) != 2 {
		t.Fatalf("%d events about retention", len(events))
	}
	if err := json.Unmarshal(events[0].Metadata, &metadata); err != nil {
		t.Fatal(err)
	}
	if metadata.Month != months[1].Format("2006-01") || metadata.Events != 100 || metadata.EventsTotal != 200 {
		t.Errorf("retention recorded %s", events[0].Metadata)
	}
	if r := l.verify(t, c.Note); !r.Intact() || r.Expired != 200 {
		t.Errorf("after retention: expired %d, %v", r.Expired, r.Problems)
	}
	l.behind(t, fmt.Sprintf(`DELETE FROM audit_events WHERE id = (SELECT id FROM audit_events WHERE occurred_at >= '%s' AND action = 'a.b' LIMIT 1)`,
		months[3].Format(time.DateOnly)))
	expect(t, l.verify(t), 2, DeletedEvent)
}

// expect fails unless the report has exactly these findings, in this batch or, for 0, about the log as a whole.
func expect(t *testing.T, r Report, batch int64, want ...Finding) {
	t.Helper()
	var got []Finding
	for _, p := range r.Problems {
		got = append(got, p.Finding)
		if p.Batch != batch {
			t.Errorf("found in batch %d, want %d: %s", p.Batch, batch, p)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %v, want %v\n%v", got, want, r.Problems)
	}
}

func quote(e Event) string { return "'" + e.ID.String() + "'" }

// setHash overwrites a leaf's hash in its tile.
func setHash(seq int64, h tlog.Hash) string {
	return fmt.Sprintf(`UPDATE audit_tiles SET data = overlay(data PLACING '\x%x' FROM %d FOR %d) WHERE level = 0 AND n = %d`,
		h[:], seq%256*tlog.HashSize+1, tlog.HashSize, seq/256)
}

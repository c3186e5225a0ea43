package auditlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/ids"
)

// sealed is a log under test.
type sealed struct {
	*Log
	service *Service
}

func openLog(t testing.TB, batch int) *sealed {
	t.Helper()
	d := openDB(t)
	keys, err := OpenKeys(KeyConfig{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return &sealed{NewLog(d, keys, batch), &Service{repo: NewDirectRepository(d)}}
}

func (l *sealed) record(t testing.TB, n int) []Event {
	t.Helper()
	events := make([]Event, n)
	for i := range events {
		events[i] = Event{
			Action: "user.updated", Actor: Ref{User, fmt.Sprint("user_", i)}, Target: Ref{User, fmt.Sprint("user_", i)},
			IP: fmt.Sprintf("10.0.0.%d", i%200), UserAgent: "test", Metadata: []byte(`{"changed":["name"]}`),
		}
	}
	return record(t, l.service, events...)
}

// sealAll seals until nothing is left and returns how many events it sealed. It may have to wait: transactions in other
// databases of the server, which tests share, hold back the final order too.
func (l *sealed) sealAll(t testing.TB) int {
	t.Helper()
	total := 0
	for {
		n, err := l.Seal(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		total += n
		pending, err := l.pending(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if pending == nil {
			return total
		}
		if n == 0 {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func TestSealAndProve(t *testing.T) {
	t.Parallel()
	l := openLog(t, 300) // more than a tile, so that batches and tiles end in different places
	ctx := t.Context()
	if _, err := l.Checkpoint(ctx); !errors.Is(err, ErrNoCheckpoint) {
		t.Fatalf("checkpoint of an empty log: %v", err)
	}
	var checkpoints []Checkpoint
	var events []Event
	for _, n := range []int{1, 2, 299, 700, 5, 1000} {
		events = append(events, l.record(t, n)...)
		if got := l.sealAll(t); got != n {
			t.Fatalf("sealed %d events, want %d", got, n)
		}
		c, err := l.Checkpoint(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if c.Size != int64(len(events)) {
			t.Fatalf("checkpoint of size %d after %d events", c.Size, len(events))
		}
		checkpoints = append(checkpoints, c)
	}
	head := checkpoints[len(checkpoints)-1]

	for _, c := range checkpoints {
		if opened, err := l.keys.open(c.Note); err != nil || opened != c {
			t.Errorf("checkpoint of size %d: opened as %+v, %v", c.Size, opened, err)
		}
		p, err := l.Consistency(ctx, c.Size, 0)
		if err != nil {
			t.Fatal(err)
		}
		if p.FromRoot != c.Root || p.ToRoot != head.Root {
			t.Errorf("size %d: the proof's roots are not those of the checkpoints", c.Size)
		}
		if err := tlog.CheckTree(p.Hashes, p.To, head.Root, c.Size, c.Root); err != nil {
			t.Errorf("consistency from %d: %v", c.Size, err)
		}
	}
	for i := 0; i < len(events); i += 37 {
		for _, c := range checkpoints {
			p, err := l.Inclusion(ctx, events[i].ID, c.Size)
			if int64(i) >= c.Size {
				if !errors.Is(err, ErrTreeSize) {
					t.Errorf("event %d in a tree of %d: got %v, want ErrTreeSize", i, c.Size, err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.Index != int64(i) || p.Leaf != events[i].leafHash() || p.Root != c.Root || p.Note != c.Note {
				t.Errorf("event %d at size %d: proof %+v", i, c.Size, p)
			}
			if err := tlog.CheckRecord(p.Hashes, c.Size, c.Root, p.Index, p.Leaf); err != nil {
				t.Errorf("event %d at size %d: %v", i, c.Size, err)
			}
		}
	}
}

func TestProofErrors(t *testing.T) {
	t.Parallel()
	l := openLog(t, 100)
	ctx := t.Context()
	old := l.record(t, 3)
	l.sealAll(t)
	fresh := l.record(t, 1)
	tests := []struct {
		name string
		run  func() error
		want error
	}{
		{"unknown event", func() error { _, err := l.Inclusion(ctx, ids.New(), 0); return err }, ErrNotFound},
		{"unsealed event", func() error { _, err := l.Inclusion(ctx, fresh[0].ID, 0); return err }, ErrNotSealed},
		{"size beyond the tree", func() error { _, err := l.Inclusion(ctx, old[0].ID, 4); return err }, ErrTreeSize},
		{"negative size", func() error { _, err := l.Inclusion(ctx, old[0].ID, -1); return err }, ErrTreeSize},
		{"from nothing", func() error { _, err := l.Consistency(ctx, 0, 3); return err }, ErrTreeSize},
		{"from beyond to", func() error { _, err := l.Consistency(ctx, 3, 2); return err }, ErrTreeSize},
		{"to beyond the tree", func() error { _, err := l.Consistency(ctx, 1, 4); return err }, ErrTreeSize},
	}
	for _, test := range tests {
		if err := test.run(); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
}

// TestSealOrder runs writers whose transactions overlap and partly fail, against several sealers: every committed event
// must be sealed once, and none twice.
func TestSealOrder(t *testing.T) {
	t.Parallel()
	l := openLog(t, 50)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)

	var writers, sealers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(w)))
			for range 30 {
				pause := time.Duration(random.IntN(3000)) * time.Microsecond
				fails := random.IntN(4) == 0
				err := l.db.InTx(t.Context(), func(ctx context.Context) error {
					if _, err := l.service.Record(ctx, Event{Action: "a.b", Actor: Ref{Type: System}}); err != nil {
						return err
					}
					time.Sleep(pause)
					if fails {
						return errAbandoned
					}
					_, err := l.service.Record(ctx, Event{Action: "a.c", Actor: Ref{Type: System}})
					return err
				})
				if err != nil && !errors.Is(err, errAbandoned) {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	for range 3 {
		sealers.Go(func() {
			for {
				if _, err := l.Seal(t.Context()); err != nil {
					t.Error(err)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	writers.Wait()
	close(done)
	sealers.Wait()
	l.sealAll(t)

	var events, leaves, distinct int
	err := l.db.SQL().QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM audit_events), count(*), count(DISTINCT event_id)
		FROM audit_leaves JOIN audit_events ON id = event_id`).Scan(&events, &leaves, &distinct)
	if err != nil {
		t.Fatal(err)
	}
	if events == 0 || events != leaves || leaves != distinct {
		t.Errorf("%d events, %d leaves of %d events", events, leaves, distinct)
	}
}

var errAbandoned = errors.New("abandoned")

func TestSealWaitsForOlderTransactions(t *testing.T) {
	t.Parallel()
	l := openLog(t, 100)
	var early []Event
	err := l.db.InTx(t.Context(), func(ctx context.Context) error {
		var err error
		if early, err = l.service.Record(ctx, Event{Action: "a.b", Actor: Ref{Type: System}}); err != nil {
			return err
		}
		l.record(t, 1) // commits first, with a higher transaction id
		if n, err := l.Seal(t.Context()); n != 0 || err != nil {
			t.Errorf("sealed %d events while an older transaction ran, %v", n, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := l.sealAll(t); n != 2 {
		t.Errorf("sealed %d events, want 2", n)
	}
	if p, err := l.Inclusion(t.Context(), early[0].ID, 0); err != nil || p.Index != 0 {
		t.Errorf("the older transaction's event: %+v, %v", p, err)
	}
}

func TestSealRefusesAForeignHead(t *testing.T) {
	t.Parallel()
	l := openLog(t, 100)
	l.record(t, 1)
	l.sealAll(t)
	l.record(t, 1)
	other, err := OpenKeys(KeyConfig{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewLog(l.db, other, 100).Seal(t.Context()); !errors.Is(err, ErrForeignKey) {
		t.Errorf("sealing on another key's checkpoint: %v", err)
	}
	rotated, err := OpenKeys(KeyConfig{StateDir: t.TempDir(), Verifiers: []string{l.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	l.Log = NewLog(l.db, rotated, 100)
	if n := l.sealAll(t); n != 1 {
		t.Errorf("sealed %d events after a rotation, want 1", n)
	}
}

func BenchmarkSeal10000(b *testing.B) {
	l := openLog(b, 10_000)
	for b.Loop() {
		b.StopTimer()
		for range 10 {
			l.record(b, 1000)
		}
		b.StartTimer()
		if n := l.sealAll(b); n != 10_000 {
			b.Fatal(n)
		}
	}
}

// BenchmarkRecordBatch1000 records what an import of users does: one actor, many targets.
func BenchmarkRecordBatch1000(b *testing.B) {
	for name, open := range map[string]func(*db.DB) Repository{"direct": rungs["direct"], "postgres": rungs["postgres"]} {
		b.Run(name, func(b *testing.B) {
			d := openDB(b)
			service := &Service{repo: open(d)}
			batch := make([]Event, 1000)
			for b.Loop() {
				for i := range batch {
					batch[i] = Event{
						Action: "user.imported", Actor: Ref{"api_key", "importer"}, Target: Ref{User, ids.Format(User, ids.New())},
						IP: "10.0.0.1", UserAgent: "import/1.0", RequestID: "0123456789abcdef",
					}
				}
				record(b, service, batch...)
			}
			b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "events/s")
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	const events = 100_000
	l := openLog(b, 10_000)
	for range events / 1000 {
		l.record(b, 1000)
	}
	l.sealAll(b)
	for b.Loop() {
		if r := l.verify(b); !r.Intact() {
			b.Fatal(r.Problems)
		}
	}
	b.ReportMetric(float64(b.N)*events/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkAppend compares 16 writers of single events without and with a sealer, in turns, so that other load on the
// machine hits both. Sealing must leave at least 0.9 of the rate.
func BenchmarkAppend(b *testing.B) {
	const perTurn = 4000
	plain, sealing := openLog(b, 10_000), openLog(b, 10_000)
	var took [2]time.Duration
	for b.Loop() {
		took[0] += plain.append(b, perTurn)
		ctx, stop := context.WithCancel(b.Context())
		var sealer sync.WaitGroup
		sealer.Go(func() {
			for ctx.Err() == nil {
				_, _ = sealing.Seal(ctx)
				time.Sleep(250 * time.Millisecond)
			}
		})
		took[1] += sealing.append(b, perTurn)
		stop()
		sealer.Wait()
	}
	b.ReportMetric(float64(b.N)*perTurn/took[0].Seconds(), "plain/s")
	b.ReportMetric(float64(b.N)*perTurn/took[1].Seconds(), "sealed/s")
	b.ReportMetric(took[0].Seconds()/took[1].Seconds(), "ratio")
}

// append records n events one by one, by 16 writers, and returns how long that took.
func (l *sealed) append(b *testing.B, n int) time.Duration {
	b.Helper()
	started := time.Now()
	var writers sync.WaitGroup
	for range 16 {
		writers.Go(func() {
			for range n / 16 {
				l.record(b, 1)
			}
		})
	}
	writers.Wait()
	return time.Since(started)
}

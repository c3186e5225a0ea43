package rollout

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// trail is an Auditor that remembers, or fails.
type trail struct {
	mu      sync.Mutex
	actions []string
	err     error
}

func (a *trail) Record(_ context.Context, action, _ string, ids []string, _ map[string]any) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.actions = append(a.actions, action+" "+ids[0])
	return a.err
}

// logged is a log that can be read while it is written.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) contains(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.buf.String(), s)
}

// instance is one process's registry, with a module "users".
type instance struct {
	*Registry
	users *Module
	trail *trail
	log   *logged
}

func newInstance(t testing.TB, d *db.DB, initial Setting, options ...func(*Config, *Spec)) instance {
	t.Helper()
	return newFlagged(t, d, initial, nil, options...)
}

// newFlagged is newInstance with a source of flags.
func newFlagged(t testing.TB, d *db.DB, initial Setting, flags *FlagSource, options ...func(*Config, *Spec)) instance {
	t.Helper()
	cfg, spec := Defaults(), Spec{Initial: initial, Methods: MethodsOf[Reader]()}
	for _, option := range options {
		option(&cfg, &spec)
	}
	i := instance{trail: &trail{}, log: &logged{}}
	var err error
	if i.Registry, err = New(cfg, Deps{
		DB: d, Auditor: i.trail, Log: slog.New(slog.NewTextHandler(i.log, nil)), Metrics: prometheus.NewPedanticRegistry(),
		Flags: flags,
	}); err != nil {
		t.Fatal(err)
	}
	if i.users, err = i.Add("users", spec); err != nil {
		t.Fatal(err)
	}
	if err := i.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return i
}

// run runs the instance until the test ends, or stop is called.
func (i instance) run(t testing.TB) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- i.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (i instance) mustMove(t *testing.T, to Setting) {
	t.Helper()
	if err := i.Change(t.Context(), Change{Module: "users", To: to, Actor: "tester", Reason: "test"}); err != nil {
		t.Fatalf("move to %v: %v", to, err)
	}
}

// eventually waits for a condition, as long as no machine should take.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

func TestTableWinsOverConfiguration(t *testing.T) {
	d := dbtest.Open(t, Migrations())
	first := newInstance(t, d, Setting{Direct, Whole})
	first.mustMove(t, Setting{Shadow, 500})
	second := newInstance(t, d, Setting{Cached, Whole})
	if got := second.users.Setting(); got != (Setting{Shadow, 500}) {
		t.Errorf("configured as cached, the second instance is at %v", got)
	}
	history, err := second.History(t.Context(), "users", 0, 10)
	if err != nil || len(history) != 2 {
		t.Fatalf("history %+v, %v", history, err)
	}
	if h := history[1]; h.Version != 1 || h.Actor != "configuration" || h.Setting != (Setting{Direct, Whole}) {
		t.Errorf("the first record is %+v", h)
	}
	if h := history[0]; h.Version != 2 || h.Actor != "tester" || h.Reason != "test" || h.Setting != (Setting{Shadow, 500}) {
		t.Errorf("the second record is %+v", h)
	}
	if got := first.trail.actions; len(got) != 1 || got[0] != "module.moved users" {
		t.Errorf("audited: %v", got)
	}
}

func TestMovesThatAreRefused(t *testing.T) {
	d := dbtest.Open(t, Migrations())
	i := newInstance(t, d, Setting{Direct, Whole})
	for name, tt := range map[string]struct {
		change Change
		want   error
	}{
		"unknown module":      {Change{Module: "orders", To: Setting{Shadow, 1}}, ErrNotFound},
		"another version":     {Change{Module: "users", To: Setting{Shadow, 1}, Version: 7}, ErrVersionChanged},
		"two stages up":       {Change{Module: "users", To: Setting{Repository, 1}}, ErrStageNotAdjacent},
		"three stages up":     {Change{Module: "users", To: Setting{Cached, 1}, Version: 1}, ErrStageNotAdjacent},
		"nowhere is no error": {Change{Module: "users", To: Setting{Direct, Whole}, Version: 1}, nil},
	} {
		if err := i.Change(t.Context(), tt.change); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	i.trail.err = errors.New("the audit log is full")
	if err := i.Change(t.Context(), Change{Module: "users", To: Setting{Shadow, 1}}); !errors.Is(err, i.trail.err) {
		t.Errorf("unaudited: %v", err)
	}
	if history, err := i.History(t.Context(), "users", 0, 10); err != nil || len(history) != 1 {
		t.Errorf("history after refusals: %+v, %v", history, err)
	}
}

func TestHistoryIsAppendOnly(t *testing.T) {
	d := dbtest.Open(t, Migrations())
	newInstance(t, d, Setting{Direct, Whole})
	for _, statement := range []string{
		`UPDATE rollout_history SET reason = 'none'`, `DELETE FROM rollout_history`, `TRUNCATE rollout_history`,
	} {
		if _, err := d.SQL().ExecContext(t.Context(), statement); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", statement, err)
		}
	}
}

func TestOneOfTwoConcurrentMovesWins(t *testing.T) {
	d := dbtest.Open(t, Migrations())
	i := newInstance(t, d, Setting{Direct, Whole})
	results := make(chan error, 8)
	for n := range cap(results) {
		go func() {
			results <- i.Change(t.Context(), Change{Module: "users", To: Setting{Shadow, n + 1}, Version: 1})
		}()
	}
	won := 0
	for range cap(results) {
		switch err := <-results; {
		case err == nil:
			won++
		case !errors.Is(err, ErrVersionChanged):
			t.Errorf("lost with %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d moves from version 1", won)
	}
}

func TestInstancesFollowAndAcknowledge(t *testing.T) {
	d := dbtest.Open(t, Migrations())
	a, b := newInstance(t, d, Setting{Direct, Whole}), newInstance(t, d, Setting{Direct, Whole})
	a.mustMove(t, Setting{Shadow, Whole})
	if got := a.users.Setting(); got.Stage != Shadow {
		t.Errorf("the instance that moved the module is at %v", got)
	}
	up := Change{Module: "users", To: Setting{Repository, 500}}
	if err := a.Change(t.Context(), up); !errors.Is(err, ErrInstancesNotCaughtUp) {
		t.Fatalf("before the other has followed: %v", err)
	}
	stop := b.run(t)
	eventually(t, "b has followed", func() bool { return b.users.Setting().Stage == Shadow })
	eventually(t, "b has acknowledged", func() bool {
		fleets, err := a.fleets(t.Context())
		return err == nil && fleets["users"].live == 2 && fleets["users"].acked == 2
	})
	a.mustMove(t, up.To)
	stop()
	a.mustMove(t, Setting{Repository, Whole}) // nobody waits for an instance that has left
}

// TestCacheNeedsTheWholeRepository: below the cache everyone reads through the repository, also those who never have.
func TestCacheNeedsTheWholeRepository(t *testing.T) {
	i := newInstance(t, dbtest.Open(t, Migrations()), Setting{Repository, Whole - 1})
	up := Change{Module: "users", To: Setting{Cached, 100}}
	if err := i.Change(t.Context(), up); !errors.Is(err, ErrStageNotWhole) {
		t.Errorf("from a part: %v", err)
	}
	i.mustMove(t, Setting{Repository, Whole})
	i.mustMove(t, up.To)
}

// TestInstancesThatDieDoNotHoldOthersUp kills an instance, which therefore does not say that it goes.
func TestInstancesThatDieDoNotHoldOthersUp(t *testing.T) {
	d := dbtest.Open(t, Migrations())
	a, dead := newInstance(t, d, Setting{Direct, Whole}), newInstance(t, d, Setting{Direct, Whole})
	a.mustMove(t, Setting{Shadow, Whole})
	up := Change{Module: "users", To: Setting{Repository, 500}}
	if err := a.Change(t.Context(), up); !errors.Is(err, ErrInstancesNotCaughtUp) {
		t.Fatalf("while it may be alive: %v", err)
	}
	if _, err := d.SQL().ExecContext(t.Context(),
		`UPDATE rollout_instances SET seen_at = seen_at - $2::float8 * interval '1 second' WHERE instance = $1`,
		dead.id, aliveFor.Seconds()); err != nil { // what time would do
		t.Fatal(err)
	}
	a.mustMove(t, up.To)
	if s, err := a.Status(t.Context(), "users"); err != nil || s.Live != 1 || s.Acked != 1 {
		t.Errorf("%d of %d live instances have acknowledged, %v", s.Acked, s.Live, err)
	}
}

// TestMovesRememberHowFastThePathsWere, for when the old one is at rest.
func TestMovesRememberHowFastThePathsWere(t *testing.T) {
	i := newInstance(t, dbtest.Open(t, Migrations()), Setting{Repository, Whole})
	traffic(i.users.counters, repository, guardCalls, time.Millisecond, 0)
	traffic(i.users.counters, direct, guardCalls-1, time.Millisecond, 0)
	if err := i.poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	i.mustMove(t, Setting{Cached, Whole})
	i.mustMove(t, Setting{Cached, 100}) // nothing has been counted meanwhile
	rows, err := i.stages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	known := rows[0].known
	if p99 := known["repository"].Reads.recent(rows[0].now); p99 < time.Millisecond || p99 > 2*time.Millisecond {
		t.Errorf("the repository's p99 is remembered as %v", p99)
	}
	if f := known["repository"].Reads; f.recent(f.At.Add(2*guardMemory)) != 0 || known["direct"].Reads.P99 != 0 {
		t.Errorf("remembered: %+v", known)
	}
}

func TestMovesBackDoNotWait(t *testing.T) {
	d := dbtest.Open(t, Migrations())
	a := newInstance(t, d, Setting{Cached, Whole})
	newInstance(t, d, Setting{Cached, Whole}) // it does not run, and so never follows
	a.mustMove(t, Setting{Repository, Whole})
	a.mustMove(t, Setting{Repository, 500})
	a.mustMove(t, Setting{Shadow, Whole})
	if err := a.Change(t.Context(), Change{Module: "users", To: Setting{Repository, 500}}); !errors.Is(err, ErrInstancesNotCaughtUp) {
		t.Errorf("up again: %v", err)
	}
}

func TestLostTableKeepsTheStage(t *testing.T) {
	d := dbtest.Open(t, Migrations())
	i := newInstance(t, d, Setting{Repository, 500}, func(c *Config, _ *Spec) { c.PollInterval = 100 * time.Millisecond })
	i.run(t)
	rename := func(from, to string) {
		t.Helper()
		if _, err := d.SQL().ExecContext(t.Context(), "ALTER TABLE "+from+" RENAME TO "+to); err != nil {
			t.Fatal(err)
		}
	}
	rename("rollout_stages", "elsewhere")
	eventually(t, "the loss is said", func() bool { return i.log.contains("is lost") })
	if got := i.users.Setting(); got != (Setting{Repository, 500}) {
		t.Errorf("without the table the module is at %v", got)
	}
	rename("elsewhere", "rollout_stages")
	eventually(t, "the return is said", func() bool { return i.log.contains("is back") })
	i.mustMove(t, Setting{Shadow, Whole})
}

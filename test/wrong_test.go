//go:build unix

package test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/strata-accounts/strata/internal/servertest"
	"github.com/strata-accounts/strata/modules/users"
	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/db/dbtest"
	"github.com/strata-accounts/strata/platform/rollout"
	"github.com/strata-accounts/strata/platform/web"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

// A wrongRepository has a mistake such as one makes when SQL is moved: a member that is not what was stored.
type wrongRepository struct{ users.Repository }

func (r wrongRepository) ByID(ctx context.Context, id uuid.UUID) (users.User, error) {
	u, err := r.Repository.ByID(ctx, id)
	u.Name = strings.ToUpper(u.Name)
	return u, err
}

// silent records and ends nothing.
type silent struct{}

func (silent) Record(context.Context, string, string, []string, map[string]any) error { return nil }
func (silent) EndAll(context.Context, uuid.UUID, uuid.UUID) error                     { return nil }

// A mistaken server has the users module on the ladder, with a wrong repository.
type mistaken struct {
	*server
	users []account
}

// TestDrillWithWrongRepository: a mistake in the second rung is caught in shadow, where it harms nobody. Who goes on all the
// same is taken back by the guard, which does not go forward again. All of it shows in the API.
func TestDrillWithWrongRepository(t *testing.T) {
	t.Parallel()
	m := startMistaken(t)
	m.moveTo("users", "shadow", 100)
	m.until("the mistake shows", func(state moduleState) bool { return m.read() == 0 && state.Mismatched > 0 })
	state := m.module("users")
	if reasons := strings.Join(state.SafeToAdvance.Reasons, " "); state.SafeToAdvance.Value || !strings.Contains(reasons, "comparisons differ") {
		t.Errorf("safe to advance: %+v", state.SafeToAdvance)
	}
	m.wantReport("direct", "repository")

	m.moveTo("users", "repository", 5)
	began := time.Now()
	m.until("the guard has acted", func(state moduleState) bool { m.read(); return state.Stage == "shadow" })
	t.Logf("taken back after %s", time.Since(began).Round(time.Millisecond))
	last := m.history("users")[0]
	if last.Actor != "guard" || last.Percent != 100 || !strings.Contains(last.Reason, "comparisons differ; 1 of 10,000 may.") {
		t.Errorf("the last move is %+v", last)
	}
	back := m.module("users")
	m.until("there are comparisons in shadow again", func(state moduleState) bool {
		if wrong := m.read(); wrong > 0 {
			t.Fatalf("%d wrong answers after the guard has acted", wrong)
		}
		return state.Compared > 40
	})
	if now := m.module("users"); now.Version != back.Version || now.SafeToAdvance.Value {
		t.Errorf("after the guard has acted the module went from %+v to %+v", back, now)
	}
}

// startMistaken serves the module and the ladder until the test ends, with some users in it.
func startMistaken(t *testing.T) *mistaken {
	t.Helper()
	d := dbtest.Open(t, cache.Migrations(), rollout.Migrations(), users.Migrations())
	cfg := rollout.Defaults()
	cfg.PollInterval, cfg.Sample, cfg.MinCompared = 100*time.Millisecond, 100, 10
	log := slog.New(slog.DiscardHandler)
	ladders, err := rollout.New(cfg, rollout.Deps{DB: d, Auditor: silent{}, Log: log, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	place, err := ladders.Add("users", rollout.Spec{
		Initial: rollout.NewSetting(rollout.Direct, 100), Methods: []string{"ByID"}, MismatchBudget: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	module := users.New(users.Deps{
		DB: d, Auditor: silent{}, Sessions: silent{}, Log: log, Repository: users.NewSwitchRepository(&rollout.Ladder[users.Repository]{
			DB: d, Module: place, Direct: users.NewDirectRepository(d), Repository: wrongRepository{users.NewPostgresRepository(d)},
		}),
	})
	if err := ladders.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	runLadders(t, ladders)
	s := webtest.NewServer(t, d, func(c *web.Config, _ *web.Deps) {
		c.Limits = map[string]web.Limit{"confirm": {Requests: 1, Per: time.Minute}}
	})
	module.Routes(s.API())
	ladders.Routes(s.API())
	anonymous := webtest.New(t, s)
	m := &mistaken{server: &server{Client: anonymous, root: anonymous.As(webtest.RootKey), t: t}}
	for i := range 20 {
		a := account{name: fmt.Sprintf("Ada the %dth", i), email: fmt.Sprintf("ada%d@example.com", i)}
		var created struct{ ID string }
		m.root.Do("POST", "/v1/users", map[string]any{"email": a.email, "name": a.name}).Want(http.StatusCreated).JSON(&created)
		a.id = created.ID
		m.users = append(m.users, a)
	}
	return m
}

func runLadders(t *testing.T, ladders *rollout.Registry) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error)
	go func() { done <- ladders.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// read reads all users, and returns how many are not what they should be.
func (m *mistaken) read() (wrong int) {
	m.t.Helper()
	for _, u := range m.users {
		var got struct{ Name string }
		if m.root.Do("GET", u.path(), nil).Want(http.StatusOK).JSON(&got); got.Name != u.name {
			wrong++
		}
	}
	return wrong
}

// until waits for something that comes by itself.
func (m *mistaken) until(what string, holds func(moduleState) bool) {
	m.t.Helper()
	for deadline := time.Now().Add(servertest.StartTimeout); !holds(m.module("users")); {
		if time.Now().After(deadline) {
			m.t.Fatalf("never came true: %s: %+v", what, m.module("users"))
		}
	}
}

// wantReport wants the mistake to be reported as it is: where, and nothing of whom.
func (m *mistaken) wantReport(answered, compared string) {
	m.t.Helper()
	type difference struct{ Pointer, Kind string }
	type report struct {
		Method             string
		KeyHash            string `json:"key_hash"`
		Answered, Compared string
		Differences        []difference
	}
	var list struct{ Mismatches []report }
	var body []byte
	m.until("the mistake is reported", func(moduleState) bool {
		body = m.root.Do("GET", "/v1/modules/users/mismatches", nil).Want(http.StatusOK).JSON(&list).Body
		return len(list.Mismatches) > 0
	})
	got := list.Mismatches[0]
	if got.Method != "ByID" || got.KeyHash == "" || got.Answered != answered || got.Compared != compared ||
		!slices.Equal(got.Differences, []difference{{"/Name", "changed"}}) {
		m.t.Errorf("the report is %+v", got)
	}
	for _, personal := range []string{"Ada", "ADA", "example.com", strings.TrimPrefix(m.users[0].id, "user_")} {
		if bytes.Contains(body, []byte(personal)) {
			m.t.Errorf("the report tells of whom: %s", body)
		}
	}
}

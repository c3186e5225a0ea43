//go:build unix

package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/strata-accounts/strata/internal/servertest"
	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// moduleState is what the drill reads of a module.
type moduleState struct {
	Stage      string
	Percent    float64
	Version    int64
	Instances  struct{ Acked, Live int }
	Compared   int
	Mismatched int
	Errors     int
	Hits       struct {
		Checked, Stale int
		StaleRate      float64 `json:"stale_rate"`
	}
	SafeToAdvance struct {
		Value   bool
		Reasons []string
	} `json:"safe_to_advance"`
}

// moveMade is an entry of a module's history.
type moveMade struct {
	Stage         string
	Percent       float64
	Actor, Reason string
}

// TestDrill is docs/migrating.md: two instances under load, all modules on direct SQL, climb to the cache module by module.
// No request fails, no rung differs from another, nobody reads what is no longer so. Then somebody changes a row behind
// the cache's back, and the guard takes the module off the cache.
func TestDrill(t *testing.T) {
	t.Parallel()
	config, err := filepath.Abs("../configs/migration.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d := deploy(t, "STRATA_CONFIG="+config, "REDIS_URL="+dbtest.Redis(t).URL, "STRATA_ROLLOUT__POLL_INTERVAL=100ms",
		"STRATA_ROLLOUT__SAMPLE=100", "STRATA_ROLLOUT__MIN_COMPARED=20", "STRATA_ROLLOUT__MIN_CHECKED=5", "STRATA_CACHE__CHECK_EVERY=10ms")
	left, right := d.start(), d.start()
	l := startLoad(t, left, right)
	for _, module := range modules {
		for _, step := range []struct {
			stage   string
			percent float64
		}{{"shadow", 100}, {"repository", 5}, {"repository", 100}, {"cached", 5}, {"cached", 100}} {
			left.moveTo(module, step.stage, step.percent)
			// Of the sessions of a few users, none may be in a small part: the whole shows what the cache does.
			l.await(module, step.stage == "cached" && step.percent < 100)
		}
	}
	l.behindTheCache()
	l.stop()
	t.Logf("%d requests", l.requests.Load())
	for _, module := range modules {
		if module != "users" {
			wantClimb(t, right, module)
		}
	}
}

// wantClimb holds a module's history against what was done: nobody else has moved it.
func wantClimb(t *testing.T, s *server, module string) {
	t.Helper()
	var made []string
	for _, m := range slices.Backward(s.history(module)) {
		made = append(made, fmt.Sprintf("%s %v", m.Stage, m.Percent))
	}
	want := []string{"direct 100", "shadow 100", "repository 5", "repository 100", "cached 5", "cached 100"}
	if !slices.Equal(made, want) {
		t.Errorf("%s was moved %q, want %q", module, made, want)
	}
}

func (s *server) history(module string) []moveMade {
	s.t.Helper()
	var answer struct{ History []moveMade }
	s.root.Do("GET", "/v1/modules/"+module+"/history", nil).Want(http.StatusOK).JSON(&answer)
	return answer.History
}

func (s *server) module(name string) moduleState {
	s.t.Helper()
	var m moduleState
	s.root.Do("GET", "/v1/modules/"+name, nil).Want(http.StatusOK).JSON(&m)
	return m
}

func (s *server) moveTo(module, stage string, percent float64) {
	s.t.Helper()
	s.root.Do("PATCH", "/v1/modules/"+module, map[string]any{"stage": stage, "percent": percent, "reason": "It is safe to."}).Want(http.StatusOK)
}

// A load is clients at work on two instances, each of whom looks on one for what it did on the other.
type load struct {
	t       *testing.T
	servers []*server
	clients sync.WaitGroup

	requests atomic.Int64
	over     atomic.Bool // it is to end, or has failed
}

// startLoad has people work until stop, or the end of the test.
func startLoad(t *testing.T, servers ...*server) *load {
	t.Helper()
	l := &load{t: t, servers: servers}
	s := servers[0]
	s.root.Do("PUT", "/v1/preference-definitions/theme", `{"schema":{"type":"string"},"default":"light"}`).Want(http.StatusCreated)
	for range 3 {
		c := &client{load: l, account: s.signUp()}
		c.token = s.signIn(c.account).token
		l.clients.Go(func() {
			for turn := 0; !l.over.Load(); turn++ {
				c.turn(turn)
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	l.over.Store(true)
	l.clients.Wait()
}

// await waits until the module may advance, by what the API says. Under the load nothing may differ, fail, or be stale.
func (l *load) await(module string, acked bool) {
	l.t.Helper()
	began := time.Now()
	for {
		m := l.servers[1].module(module)
		if m.Mismatched > 0 || m.Errors > 0 || m.Hits.Stale > 0 || m.Hits.StaleRate > 0 {
			l.t.Fatalf("%s: %+v", module, m)
		}
		arrived := m.Stage == "cached" && m.Percent == 100 && m.Hits.Checked >= 5
		caughtUp := m.Instances.Live == 2 && m.Instances.Acked == 2
		if caughtUp && (acked || m.SafeToAdvance.Value || arrived) {
			l.t.Logf("%s at %s, %v %%: %s, %d compared, %d hits checked", module, m.Stage, m.Percent,
				time.Since(began).Round(time.Millisecond), m.Compared, m.Hits.Checked)
			return
		}
		if time.Since(began) > servertest.StartTimeout || l.over.Load() {
			l.t.Fatalf("%s does not get on: %+v", module, m)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// behindTheCache changes a user as nobody may: without the trigger that tells the caches. What they serve is stale then,
// which the checks find, and the guard moves the module back, for everybody to read what is so.
func (l *load) behindTheCache() {
	l.t.Helper()
	s := l.servers[0]
	victim := s.signUp()
	name := func() string {
		var user struct{ Name string }
		s.root.Do("GET", victim.path(), nil).Want(http.StatusOK).JSON(&user)
		return user.Name
	}
	stored, began := victim.name, time.Now()
	for version := 2; s.module("users").Stage != "repository"; time.Sleep(20 * time.Millisecond) {
		if name() == stored { // so do the caches, unless they have forgotten everything: another change for them to miss
			stored = fmt.Sprintf("Grace the %dth", version)
			s.deployment.sql(`SET session_replication_role = replica`,
				fmt.Sprintf(`UPDATE users SET name = '%s', version = %d WHERE email = '%s'`, stored, version, victim.email))
			version++
			s.deployment.secret(stored)
		}
		if time.Since(began) > servertest.StartTimeout {
			l.t.Fatalf("the guard does not act: %+v", s.module("users"))
		}
	}
	l.servers[1].awaitStage("users", "repository")
	if got := name(); got != stored {
		l.t.Errorf("off the cache the name is %q, want %q", got, stored)
	}
	last := s.history("users")[0]
	if last.Actor != "guard" || !strings.Contains(last.Reason, "cache hits are stale") || last.Percent != 100 {
		l.t.Errorf("the module was moved back by %+v", last)
	}
	l.t.Logf("off the cache after %s: %s", time.Since(began).Round(time.Millisecond), last.Reason)
}

// sql runs statements on the deployment's database, in one session.
func (d *deployment) sql(statements ...string) {
	d.t.Helper()
	i := slices.IndexFunc(d.env, func(v string) bool { return strings.HasPrefix(v, "DATABASE_URL=") })
	conn, err := pgx.Connect(d.t.Context(), strings.TrimPrefix(d.env[i], "DATABASE_URL="))
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, statement := range statements {
		if _, err := conn.Exec(d.t.Context(), statement); err != nil {
			d.t.Fatal(err)
		}
	}
}

// A client is a user at work.
type client struct {
	*load
	account
	token string
	event string // in the audit trail
}

// turn does on one instance what it then looks for on the other.
func (c *client) turn(n int) {
	here, there := c.servers[n%2], c.servers[(n+1)%2]
	path, name := c.path(), fmt.Sprintf("Ada the %dth", n)
	var user struct{ Name string }
	c.call(here, rootKey, "PATCH", path, map[string]string{"name": name}, http.StatusOK, nil)
	c.call(there, rootKey, "GET", path, nil, http.StatusOK, &user)
	c.want("name", user.Name, name)

	var theme struct{ Theme string }
	c.call(here, c.token, "PATCH", path+"/preferences", map[string]string{"theme": name}, http.StatusOK, nil)
	c.call(there, c.token, "GET", path+"/preferences", nil, http.StatusOK, &theme)
	c.want("theme", theme.Theme, name)

	var events struct{ Events []struct{ ID string } }
	c.call(there, c.token, "GET", "/v1/audit-events?limit=5", nil, http.StatusOK, &events)
	if c.event == "" && len(events.Events) > 0 {
		c.event = events.Events[0].ID
	}
	c.call(there, rootKey, "GET", "/v1/audit-events/"+c.event, nil, http.StatusOK, nil)
	switch n % 8 {
	case 0, 4:
		c.call(here, c.token, "GET", path+"/sessions", nil, http.StatusOK, nil)
		c.call(here, rootKey, "GET", "/v1/users?limit=5", nil, http.StatusOK, nil)
	case 2:
		c.rotate(here, there)
	case 6:
		c.signOut(here, there)
	}
}

// rotate exchanges the token: the old one is dead everywhere.
func (c *client) rotate(here, there *server) {
	var rotated struct{ Token string }
	c.call(here, c.token, "POST", "/v1/sessions/current/rotate", nil, http.StatusOK, &rotated)
	c.call(there, c.token, "GET", "/v1/sessions/current", nil, http.StatusUnauthorized, nil)
	if rotated.Token != "" {
		c.token = here.deployment.secret(rotated.Token)
	}
	c.call(there, c.token, "GET", "/v1/sessions/current", nil, http.StatusOK, nil)
}

// signOut ends the session, and begins another.
func (c *client) signOut(here, there *server) {
	c.call(here, c.token, "DELETE", "/v1/sessions/current", nil, http.StatusNoContent, nil)
	c.call(there, c.token, "GET", "/v1/sessions/current", nil, http.StatusUnauthorized, nil)
	var session struct{ Token string }
	c.call(there, "", "POST", "/v1/sessions", credentials(c.email, c.password), http.StatusCreated, &session)
	if session.Token != "" {
		c.token = here.deployment.secret(session.Token)
	}
}

func (c *client) want(what, got, want string) {
	if got != want && !c.over.Load() {
		c.fail("a stale %s: %q, want %q", what, got, want)
	}
}

func (c *client) fail(format string, args ...any) {
	c.t.Errorf(format, args...)
	c.over.Store(true)
}

// call makes a request, once. It may not fail, whatever the modules do meanwhile.
func (c *client) call(s *server, credential, method, path string, body any, status int, answer any) {
	if c.over.Load() {
		return
	}
	got, data, err := send(context.Background(), s, credential, method, path, body)
	c.requests.Add(1)
	switch {
	case err != nil:
		c.fail("%s %s: %v", method, path, err)
	case got != status:
		c.fail("%s %s: status %d, want %d\n%s", method, path, got, status, data)
	case answer != nil:
		if err := json.Unmarshal(data, answer); err != nil {
			c.fail("%s %s: %v", method, path, err)
		}
	}
}

// send makes a request without holding the answer against the OpenAPI document, which other tests do, at a price.
func send(ctx context.Context, s *server, credential, method, path string, body any) (status int, answer []byte, err error) {
	content := []byte(nil)
	if body != nil {
		if content, err = json.Marshal(body); err != nil {
			return 0, nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, bytes.NewReader(content))
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if credential != "" {
		req.Header.Set("Authorization", "Bearer "+credential)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}

//go:build unix

package test

import (
	"bytes"
	"net/http"
	"os/exec"
	"slices"
	"testing"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// stages returns the settings for the modules' stages, in the order users, sessions, auditlog, preferences.
func stages(users, sessions, auditlog, preferences string) []string {
	return []string{
		"STRATA_USERS__STAGE=" + users, "STRATA_SESSIONS__STAGE=" + sessions,
		"STRATA_AUDITLOG__STAGE=" + auditlog, "STRATA_PREFERENCES__STAGE=" + preferences,
	}
}

func allAt(stage string) []string { return stages(stage, stage, stage, stage) }

// TestStory is the life of an account, told through HTTP alone: on every rung the same.
func TestStory(t *testing.T) {
	for _, tc := range []struct {
		name     string
		settings []string
		redis    bool
	}{
		{"direct", allAt("direct"), false},
		{"repository", allAt("repository"), false},
		{"cached", allAt("cached"), false},
		{"cached with Redis", allAt("cached"), true},
		{"climbing", stages("repository", "direct", "cached", "shadow"), true},
		{"climbing the other way", stages("direct", "cached", "repository", "cached"), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.redis {
				tc.settings = append(tc.settings, "REDIS_URL="+dbtest.Redis(t).URL)
			}
			s := deploy(t, tc.settings...).start()
			tellStory(t, s)
			s.stop()
			s.auditVerify()
		})
	}
}

// tellStory plays the story and returns nothing: what matters is in the audit trail, which it reads at the end.
func tellStory(t *testing.T, s *server) {
	t.Helper()
	s.root.Do("PUT", "/v1/preference-definitions/theme", `{"schema":{"enum":["light","dark"]},"default":"light"}`).Want(http.StatusCreated)
	ada := s.signUp()
	s.root.Do("POST", "/v1/users", credentials(ada.email, ada.password)).WantProblem(http.StatusConflict, "user_email_taken")

	s.Do("POST", "/v1/sessions", credentials(ada.email, s.deployment.secret("not "+ada.password))).
		WantProblem(http.StatusUnauthorized, "invalid_credentials")
	first := s.signIn(ada)
	first.wantLive(t)
	setTheme(t, s, first, ada)
	log := s.auditLog(t)
	before := log.checkpoint()

	suspend(t, s, first, ada)
	first.wantDead(t) // reactivated, but its sessions are gone for good
	second := s.signIn(ada)
	wantTheme(t, second, ada, "dark")

	var rotated struct{ Token string }
	second.Do("POST", "/v1/sessions/current/rotate", nil).Want(http.StatusOK).JSON(&rotated)
	second.wantDead(t)
	third := s.device(second.session, rotated.Token)
	third.wantLive(t)

	revokeEverywhere(t, s, third, ada)
	mine := log.eventsOf("actor", ada.id)
	if len(mine) == 0 || mine[0].IP == "" {
		t.Errorf("before the erasure the trail should say from where: %+v", mine)
	}
	erase(t, s, ada)
	readBack(t, s, log, ada, before)
}

func setTheme(t *testing.T, s *server, d device, a account) {
	t.Helper()
	wantTheme(t, d, a, "light")
	d.Do("PATCH", a.path()+"/preferences", `{"theme":"green"}`).Want(http.StatusUnprocessableEntity)
	d.Do("PATCH", a.path()+"/preferences", `{"theme":"dark"}`).Want(http.StatusOK)
	wantTheme(t, d, a, "dark")
	var sources struct {
		Theme struct{ Value, Source string }
	}
	s.root.Do("GET", a.path()+"/preferences?source=true", nil).Want(http.StatusOK).JSON(&sources)
	if sources.Theme.Value != "dark" || sources.Theme.Source != "user" {
		t.Errorf("the theme is %+v", sources.Theme)
	}
}

func wantTheme(t *testing.T, d device, a account, want string) {
	t.Helper()
	var values struct{ Theme string }
	d.Do("GET", a.path()+"/preferences", nil).Want(http.StatusOK).JSON(&values)
	if values.Theme != want {
		t.Errorf("the theme is %q, want %q", values.Theme, want)
	}
}

// suspend suspends the account, sees it refused everywhere, and reactivates it.
func suspend(t *testing.T, s *server, d device, a account) {
	t.Helper()
	s.root.Do("PATCH", a.path(), `{"status":"suspended"}`, "If-Match", `"0"`).WantProblem(http.StatusPreconditionFailed, "precondition_failed")
	current := s.root.Do("GET", a.path(), nil).Want(http.StatusOK).Header.Get("Etag")
	s.root.Do("PATCH", a.path(), `{"status":"suspended"}`, "If-Match", current).Want(http.StatusOK)
	d.wantDead(t)
	s.Do("POST", "/v1/sessions", credentials(a.email, a.password)).WantProblem(http.StatusForbidden, "user_suspended")
	s.root.Do("POST", "/v1/sessions/introspect", map[string]any{"token": d.token}).Want(http.StatusOK)
	s.root.Do("PATCH", a.path(), `{"status":"active"}`).Want(http.StatusOK)
}

// revokeEverywhere signs in on another device and ends all sessions from there.
func revokeEverywhere(t *testing.T, s *server, d device, a account) {
	t.Helper()
	other := s.signIn(a)
	var list struct {
		Sessions []struct {
			ID      string
			Current bool
		}
	}
	other.Do("GET", a.path()+"/sessions", nil).Want(http.StatusOK).JSON(&list)
	if len(list.Sessions) != 2 || list.Sessions[0].ID != other.session || !list.Sessions[0].Current || list.Sessions[1].Current {
		t.Errorf("the devices are %+v", list.Sessions)
	}
	var answer struct{ Revoked int }
	other.Do("DELETE", a.path()+"/sessions", nil).Want(http.StatusOK).JSON(&answer)
	if answer.Revoked != 2 {
		t.Errorf("%d sessions were revoked, want 2", answer.Revoked)
	}
	d.wantDead(t)
	other.wantDead(t)
}

func erase(t *testing.T, s *server, a account) {
	t.Helper()
	s.root.Do("DELETE", a.path()+"?erase=true", nil).Want(http.StatusNoContent)
	s.root.Do("GET", a.path(), nil).Want(http.StatusNotFound)
	s.root.Do("GET", a.path()+"/preferences", nil).Want(http.StatusNotFound)
	s.root.Do("POST", a.path()+"/restore", nil).Want(http.StatusNotFound)
	s.Do("POST", "/v1/sessions", credentials(a.email, a.password)).WantProblem(http.StatusUnauthorized, "invalid_credentials")
}

// readBack holds the audit trail against the story: every step, in order, by whom, proven, and nothing of the person.
func readBack(t *testing.T, s *server, log *auditLog, a account, before checkpoint) {
	t.Helper()
	export := s.root.Do("GET", "/v1/audit-events/export", nil).Want(http.StatusOK).Body
	for _, personal := range []string{a.email, a.name, a.password} {
		if bytes.Contains(export, []byte(personal)) {
			t.Errorf("the audit trail holds personal data:\n%s", export)
		}
	}
	events := log.events()
	var actions []string
	for _, e := range slices.Backward(events) { // they come newest first
		actions = append(actions, e.Actor.Type+" "+e.Action)
		if e.Actor.ID == a.id && (e.IP != "" || e.UserAgent != "") {
			t.Errorf("after the erasure the trail still says from where: %+v", e)
		}
	}
	if !slices.Equal(actions, storyTrail) {
		t.Errorf("the audit trail is\n%q, want\n%q", actions, storyTrail)
	}
	after := log.awaitSealed(len(events))
	log.wantConsistent(before, after)
	for _, e := range events {
		log.wantIncluded(e, after)
	}
}

// storyTrail is what the story leaves: who did what.
var storyTrail = []string{
	"api_key preference_definition.created",
	"api_key user.created",
	"anonymous session.sign_in_failed",
	"user session.created",
	"user preferences.updated",
	"api_key session.revoked", "api_key user.suspended",
	"api_key user.reactivated",
	"user session.created",
	"user session.rotated",
	"user session.created",
	"user session.revoked", "user session.revoked",
	"api_key user.erased",
	"anonymous session.sign_in_failed",
}

// auditVerify re-audits the log of a stopped server with the program's own command.
func (s *server) auditVerify() {
	s.t.Helper()
	verify := exec.CommandContext(s.t.Context(), s.Cmd.Path, "audit", "verify")
	verify.Env = s.Cmd.Env
	if out, err := verify.CombinedOutput(); err != nil {
		s.t.Errorf("audit verify: %v\n%s", err, out)
	}
}

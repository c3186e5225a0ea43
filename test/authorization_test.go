//go:build unix

package test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/strata-accounts/strata/platform/web"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

// scopes are all that a key can have.
var scopes = []string{
	"users:read", "users:write", "sessions:read", "sessions:write", "audit:read", "audit:write", "preferences:read",
	"preferences:write", "preferences:define", "rollout:read", "rollout:write",
}

// onlyKey and lackingKey are API keys with this scope alone, and with all others.
func onlyKey(scope string) string    { return "sk_of_the_black_box_tests_only_" + scope }
func lackingKey(scope string) string { return "sk_of_the_black_box_tests_lacking_" + scope }

// scopedKeys is the setting that makes these keys known.
func scopedKeys(t *testing.T) string {
	t.Helper()
	var keys []map[string]any
	add := func(key string, scopes []string) {
		sum := sha256.Sum256([]byte(key))
		keys = append(keys, map[string]any{"name": strings.ReplaceAll(key, "sk_", ""), "hash": hex.EncodeToString(sum[:]), "scopes": scopes})
	}
	for i, scope := range scopes {
		add(onlyKey(scope), []string{scope})
		add(lackingKey(scope), slices.Delete(slices.Clone(scopes), i, i+1))
	}
	setting, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	return "STRATA_AUTH__KEYS=" + string(setting)
}

// checkTable holds the table of operations against the document, both ways.
func (s *server) checkTable() {
	s.t.Helper()
	tabled := map[string]bool{}
	for _, o := range operations {
		tabled[o.call] = true
	}
	documented := map[string]bool{}
	for path, methods := range s.document().Paths {
		for method := range methods {
			call := strings.ToUpper(method) + " " + path
			documented[call] = true
			if !tabled[call] {
				s.t.Errorf("%s is missing from the table of operations: say who may call it", call)
			}
		}
	}
	for call := range tabled {
		if !documented[call] {
			s.t.Errorf("%s is in the table of operations, but not in the document", call)
		}
	}
}

// TestAuthorization makes every call of the API with every kind of credential.
func TestAuthorization(t *testing.T) {
	t.Parallel()
	s := deploy(t, scopedKeys(t)).start()
	s.checkTable()
	w := &authorization{server: s, foreign: s.newSubject(), revoked: s.newSubject().device, sub: s.newSubject()}
	w.revoked.Do("DELETE", "/v1/sessions/current", nil).Want(http.StatusNoContent)
	log := s.auditLog(t)
	events := log.events()
	log.awaitSealed(len(events))
	w.event = events[0].ID
	w.sub.event = w.event
	for _, o := range operations {
		w.refuse(o)
		w.admit(o)
	}
	sessionLimits(t, s)
	auditTrailIsOwn(t, s, w.foreign)
}

// authorization is who tries what in TestAuthorization.
type authorization struct {
	*server
	sub     *subject // of all calls
	foreign *subject // somebody else, signed in
	revoked device
	event   string
}

// refuse makes the call as all who may not.
func (w *authorization) refuse(o operation) {
	w.t.Helper()
	for _, c := range []*webtest.Client{
		w.Client, w.As("sk_garbage"), w.As("st_garbage"), w.As("garbage"), w.revoked.Client, w.As(w.sub.id), w.As(rootKey + "x"),
	} {
		if o.public {
			w.want(o, c, o.ok, "")
			continue
		}
		code := "credential_invalid"
		if c == w.Client {
			code = "unauthenticated"
		}
		w.want(o, c, http.StatusUnauthorized, code)
	}
	if o.public {
		return
	}
	switch o.scope {
	case "*":
	case "":
		w.want(o, w.root, http.StatusForbidden, "forbidden")
	default:
		w.want(o, w.As(lackingKey(o.scope)), http.StatusForbidden, "scope_missing")
	}
	switch o.session {
	case refused:
		w.want(o, w.sub.Client, http.StatusForbidden, "forbidden")
		w.want(o, w.foreign.Client, http.StatusForbidden, "forbidden")
	case owner:
		w.want(o, w.foreign.Client, http.StatusNotFound, "")
	case anyone:
	}
}

// admit makes the call as all who may: refusals before it have not changed what it is about.
func (w *authorization) admit(o operation) {
	w.t.Helper()
	switch o.scope {
	case "":
	case "*":
		w.want(o, w.As(onlyKey("rollout:read")), o.ok, "")
	default:
		w.want(o, w.As(onlyKey(o.scope)), o.ok, "")
		w.renew(o)
	}
	if o.session != refused {
		w.want(o, w.sub.Client, o.ok, "")
		w.renew(o)
	}
}

// renew replaces a subject that the call has spent.
func (w *authorization) renew(o operation) {
	w.t.Helper()
	if o.spends {
		w.sub = w.newSubject()
		w.sub.event = w.event
	}
}

func (w *authorization) want(o operation, c *webtest.Client, status int, code string) {
	w.t.Helper()
	res := o.make(c, w.sub)
	var p web.Problem
	if res.Status >= http.StatusBadRequest {
		res.JSON(&p)
	}
	if res.Status != status || code != "" && p.Code != code {
		w.t.Errorf("%s: %d %s, want %d %s", o.call, res.Status, p.Code, status, code)
	}
	if res.Status == http.StatusUnauthorized && !strings.HasPrefix(res.Header.Get("Www-Authenticate"), "Bearer ") {
		w.t.Errorf("%s: a 401 that challenges with %q", o.call, res.Header.Get("Www-Authenticate"))
	}
}

// sessionLimits: of its own user, a session may change only what is harmless, and prove that it knows the password.
func sessionLimits(t *testing.T, s *server) {
	t.Helper()
	sub := s.newSubject()
	for _, patch := range []string{
		`{"email":"else@example.com"}`, `{"status":"suspended"}`, `{"metadata":{"admin":true}}`, `{"name":"Eve","metadata":null}`,
	} {
		sub.Do("PATCH", sub.path(), patch).WantProblem(http.StatusForbidden, "forbidden")
	}
	password := s.deployment.newPerson().password
	sub.Do("PUT", sub.path()+"/password", map[string]any{"password": password}).Want(http.StatusUnprocessableEntity)
	sub.Do("PUT", sub.path()+"/password", map[string]any{"password": password, "current_password": password}).
		WantProblem(http.StatusUnprocessableEntity, "current_password_wrong")
	other := s.signIn(sub.account)
	sub.Do("PUT", sub.path()+"/password", map[string]any{"password": password, "current_password": sub.password}).Want(http.StatusNoContent)
	sub.wantLive(t)
	other.wantDead(t)
}

// auditTrailIsOwn: a session sees what it did and what was done to its user, and nothing else, whatever it asks for.
func auditTrailIsOwn(t *testing.T, s *server, sub *subject) {
	t.Helper()
	other := s.newSubject()
	for _, query := range []string{"", "?actor=" + other.id, "?target=" + other.id, "?actor=root", "?limit=200"} {
		var page struct{ Events []auditEvent }
		sub.Do("GET", "/v1/audit-events"+query, nil).Want(http.StatusOK).JSON(&page)
		for _, e := range page.Events {
			if e.Actor.ID != sub.id && e.Target.ID != sub.id {
				t.Errorf("a session sees another's event with %q: %+v", query, e)
			}
		}
		if query == "" && len(page.Events) == 0 {
			t.Error("a session does not see its own events")
		}
	}
}

//go:build unix

package test

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/strata-accounts/strata/platform/web/webtest"
)

// sessionAccess says what a session token is good for in a call.
type sessionAccess int

const (
	refused sessionAccess = iota // 403, whoever's it is
	owner                        // for what is its user's; what is another's is not found
	anyone                       // every session may, and sees its own
)

// An operation is a call of the API as it may be made: by whom, and with what. It is written by hand from the API's
// promises, not from the OpenAPI document, which is held against it.
type operation struct {
	call    string // as in the document
	scope   string // that a key needs; "*": any will do; empty: keys are refused
	session sessionAccess
	public  bool
	ok      int    // status of the call below, made by one who may
	query   string // placeholders as in body
	body    string // with <id>, <email>, <password>, <token>, <event> and <new>, an e-mail address that nobody has
	ndjson  bool   // body is lines
	spends  bool   // the call ends the user, the session, or what else it needs
}

var operations = []operation{
	{
		call: "POST /v1/users", scope: "users:write", ok: http.StatusCreated,
		body: `{"email":"<new>","password":"<password>","name":"Ada","metadata":{}}`,
	},
	{call: "GET /v1/users", scope: "users:read", ok: http.StatusOK},
	{call: "GET /v1/users/export", scope: "users:read", ok: http.StatusOK},
	{call: "POST /v1/users/import", scope: "users:write", ok: http.StatusOK, body: `{"email":"<new>"}`, ndjson: true},
	{call: "GET /v1/users/{id}", scope: "users:read", session: owner, ok: http.StatusOK},
	{call: "PATCH /v1/users/{id}", scope: "users:write", session: owner, ok: http.StatusOK, body: `{"name":"Ada"}`},
	{call: "DELETE /v1/users/{id}", scope: "users:write", ok: http.StatusNoContent, spends: true},
	{call: "POST /v1/users/{id}/restore", scope: "users:write", ok: http.StatusConflict}, // not deleted
	{
		call: "PUT /v1/users/{id}/password", scope: "users:write", session: owner, ok: http.StatusNoContent,
		body: `{"password":"another <password>","current_password":"<password>"}`, spends: true,
	},
	{call: "POST /v1/users/{id}/email-verifications", scope: "users:write", ok: http.StatusCreated},
	{
		call: "POST /v1/email-verifications/confirm", public: true, ok: http.StatusUnprocessableEntity, // no such token
		body: `{"token":"vt_of_nobody"}`,
	},
	{call: "POST /v1/password-resets", scope: "users:write", ok: http.StatusCreated, body: `{"email":"<new>"}`},
	{
		call: "POST /v1/password-resets/confirm", public: true, ok: http.StatusUnprocessableEntity, // no such token
		body: `{"token":"vt_of_nobody","password":"<password>"}`,
	},

	{call: "POST /v1/sessions", public: true, ok: http.StatusCreated, body: `{"email":"<email>","password":"<password>"}`},
	{call: "GET /v1/sessions/current", session: anyone, ok: http.StatusOK},
	{call: "POST /v1/sessions/current/rotate", session: anyone, ok: http.StatusOK, spends: true},
	{call: "DELETE /v1/sessions/current", session: anyone, ok: http.StatusNoContent, spends: true},
	{call: "POST /v1/sessions/introspect", scope: "sessions:read", ok: http.StatusOK, body: `{"token":"<token>"}`},
	{call: "DELETE /v1/sessions/{id}", scope: "sessions:write", session: owner, ok: http.StatusNoContent, spends: true},
	{call: "GET /v1/users/{id}/sessions", scope: "sessions:read", session: owner, ok: http.StatusOK},
	{call: "DELETE /v1/users/{id}/sessions", scope: "sessions:write", session: owner, ok: http.StatusOK, spends: true},

	{call: "GET /v1/audit-events", scope: "audit:read", session: anyone, ok: http.StatusOK},
	{call: "POST /v1/audit-events", scope: "audit:write", ok: http.StatusCreated, body: `{"action":"invoice.paid","request_id":"r"}`},
	{call: "GET /v1/audit-events/export", scope: "audit:read", ok: http.StatusOK},
	{call: "GET /v1/audit-events/{id}", scope: "audit:read", ok: http.StatusOK},
	{call: "GET /v1/audit-log/checkpoint", scope: "audit:read", ok: http.StatusOK},
	{call: "GET /v1/audit-log/proof", scope: "audit:read", ok: http.StatusOK, query: "event=<event>"},
	{call: "GET /v1/audit-log/consistency", scope: "audit:read", ok: http.StatusOK, query: "from=1"},

	{call: "GET /v1/preference-definitions", scope: "*", session: anyone, ok: http.StatusOK},
	{call: "GET /v1/preference-definitions/{key}", scope: "*", session: anyone, ok: http.StatusOK},
	{
		call: "PUT /v1/preference-definitions/{key}", scope: "preferences:define", ok: http.StatusOK,
		body: `{"schema":{"enum":["light","dark"]},"default":"light","description":"Colours"}`,
	},
	{call: "DELETE /v1/preference-definitions/{key}", scope: "preferences:define", ok: http.StatusNoContent, spends: true},
	{call: "GET /v1/users/{id}/preferences", scope: "preferences:read", session: owner, ok: http.StatusOK},
	{call: "PATCH /v1/users/{id}/preferences", scope: "preferences:write", session: owner, ok: http.StatusOK, body: `{"theme":null}`},
	{
		call: "PUT /v1/users/{id}/preferences/{key}", scope: "preferences:write", session: owner, ok: http.StatusOK,
		body: `{"value":"light"}`,
	},
	{call: "DELETE /v1/users/{id}/preferences/{key}", scope: "preferences:write", session: owner, ok: http.StatusNoContent},

	{call: "GET /v1/modules", scope: "rollout:read", ok: http.StatusOK},
	{call: "GET /v1/modules/{name}", scope: "rollout:read", ok: http.StatusOK},
	{call: "PATCH /v1/modules/{name}", scope: "rollout:write", ok: http.StatusOK, body: `{"stage":"cached","reason":"It is there."}`},
	{call: "GET /v1/modules/{name}/mismatches", scope: "rollout:read", ok: http.StatusOK},
	{call: "GET /v1/modules/{name}/history", scope: "rollout:read", ok: http.StatusOK},
}

// document is as much of the OpenAPI document as the tests here go by.
type document struct {
	Paths map[string]map[string]struct {
		Parameters []struct {
			Name, In string
			Schema   struct{ Type, Format string }
		}
		RequestBody *struct{ Content map[string]any }
	}
}

func (s *server) document() document {
	s.t.Helper()
	var d document
	s.Do("GET", "/openapi.json", nil).Want(http.StatusOK).JSON(&d)
	return d
}

// A subject is whom, and what, the calls of the table are about.
type subject struct {
	account
	device
	event string // in the audit trail, sealed
	news  int    // e-mail addresses made up
}

// newSubject signs somebody up and in. The definition of the preference is there again.
func (s *server) newSubject() *subject {
	s.t.Helper()
	s.root.Do("PUT", "/v1/preference-definitions/theme", `{"schema":{"enum":["light","dark"]},"default":"light"}`)
	sub := &subject{account: s.signUp()}
	sub.device = s.signIn(sub.account)
	return sub
}

// make makes the operation's call about sub.
func (o operation) make(c *webtest.Client, sub *subject) *webtest.Response {
	method, path := o.target(sub)
	if o.query != "" {
		path += "?" + sub.fill(o.query)
	}
	switch {
	case o.body == "":
		return c.Do(method, path, nil)
	case o.ndjson:
		return c.Do(method, path, sub.fill(o.body), "Content-Type", "application/x-ndjson")
	}
	return c.Do(method, path, sub.fill(o.body))
}

// target returns the call's method and path, with the subject's ids in it.
func (o operation) target(sub *subject) (method, path string) {
	method, path, _ = strings.Cut(o.call, " ")
	id := sub.id
	switch {
	case strings.HasPrefix(path, "/v1/sessions/"):
		id = sub.session
	case strings.HasPrefix(path, "/v1/audit-events/"):
		id = sub.event
	}
	return method, strings.NewReplacer("{id}", id, "{key}", "theme", "{name}", "users").Replace(path)
}

// fill puts what is known of the subject in the place of placeholders.
func (sub *subject) fill(s string) string {
	sub.news++
	return strings.NewReplacer(
		"<id>", sub.id, "<email>", sub.email, "<password>", sub.password, "<token>", sub.token, "<event>", sub.event,
		"<new>", fmt.Sprintf("new%d.%s", sub.news, sub.email),
	).Replace(s)
}

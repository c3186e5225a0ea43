package preferences

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/rollout"
	"github.com/strata-accounts/strata/platform/web"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

const (
	readKey   = "sk_may_read_preferences"
	writeKey  = "sk_may_write_preferences"
	defineKey = "sk_may_define_preferences"
)

// sessions knows a token for every user: st_ and the user's id.
type sessions struct{}

func (sessions) VerifySession(_ context.Context, token string) (userID, sessionID uuid.UUID, err error) {
	userID, err = ids.Parse(userIDPrefix, strings.TrimPrefix(token, web.SessionTokenPrefix))
	return userID, uuid.Nil, err
}

// newClient serves the module and returns a client with all scopes.
func newClient(t *testing.T) (*world, *webtest.Client) {
	t.Helper()
	w := newWorld(t, rollout.Repository)
	server := webtest.NewServer(t, w.db, func(cfg *web.Config, deps *web.Deps) {
		deps.Sessions = sessions{}
		cfg.Keys = []web.APIKey{
			webtest.Key("reader", readKey, "preferences:read"), webtest.Key("writer", writeKey, "preferences:write"),
			webtest.Key("definer", defineKey, "preferences:define"),
		}
	})
	w.Routes(server.API())
	return w, webtest.New(t, server).As(webtest.RootKey)
}

const theme = `{"schema":{"type":"string","enum":["light","dark"]},"default":"light","description":"Colours."}`

func TestDefinitionsOverHTTP(t *testing.T) {
	_, c := newClient(t)
	const path = "/v1/preference-definitions"
	c.Do("GET", path+"/theme", nil).WantProblem(http.StatusNotFound, "preference_not_defined")
	res := c.Do("PUT", path+"/theme", theme, "If-None-Match", "*").Want(http.StatusCreated)
	var d definition
	res.JSON(&d)
	if res.Header.Get("Etag") != `"1"` || d.Key != "theme" || string(d.Default) != `"light"` || d.Version != 1 ||
		string(d.Schema) != `{"type":"string","enum":["light","dark"]}` || d.Description != "Colours." || d.CreatedAt.IsZero() {
		t.Errorf("created %s", res.Body)
	}
	c.Do("PUT", path+"/theme", theme, "If-None-Match", "*").WantProblem(http.StatusPreconditionFailed, "precondition_failed")
	c.Do("PUT", path+"/other", theme, "If-Match", "*").WantProblem(http.StatusPreconditionFailed, "precondition_failed")
	res = c.Do("PUT", path+"/theme", `{"schema":{},"default":null}`, "If-Match", `"1"`).Want(http.StatusOK)
	res.JSON(&d)
	if res.Header.Get("Etag") != `"2"` || string(d.Default) != `null` {
		t.Errorf("replaced under ETag %s: %s", res.Header.Get("Etag"), res.Body)
	}
	c.Do("PUT", path+"/theme", `{"schema":{},"default":{"hue":1.50}}`).Want(http.StatusOK)
	c.Do("PUT", path+"/theme", theme, "If-Match", `"1"`).WantProblem(http.StatusPreconditionFailed, "precondition_failed")

	list := c.Do("GET", path, nil).Want(http.StatusOK)
	var all struct{ Definitions []definition }
	list.JSON(&all)
	if len(all.Definitions) != 1 || string(all.Definitions[0].Default) != `{"hue":1.50}` {
		t.Errorf("listed %s", list.Body)
	}
	c.Do("GET", path, nil, "If-None-Match", list.Header.Get("Etag")).Want(http.StatusNotModified)
	c.Do("GET", path+"/theme", nil, "If-None-Match", `"3"`).Want(http.StatusNotModified)
	c.Do("DELETE", path+"/theme", nil, "If-Match", `"1"`).WantProblem(http.StatusPreconditionFailed, "precondition_failed")
	c.Do("DELETE", path+"/theme", nil).Want(http.StatusNoContent)
	c.Do("DELETE", path+"/theme", nil).WantProblem(http.StatusNotFound, "preference_not_defined")
}

func TestBadDefinitionsOverHTTP(t *testing.T) {
	_, c := newClient(t)
	for name, tc := range map[string]struct {
		key, body string
		want      []string
	}{
		"a key":            {"Theme", theme, []string{"key format"}},
		"nothing":          {"k", `{}`, []string{"/default required", "/schema required"}},
		"unknown members":  {"k", `{"schema":{},"default":1,"type":"x"}`, []string{"/type unknown_member"}},
		"a schema of text": {"k", `{"schema":"x","default":1}`, []string{"/schema type"}},
		"a schema":         {"k", `{"schema":{"properties":{"a":{"type":"secret"}}},"default":1}`, []string{"/schema/properties/a/type not_allowed"}},
		"a default":        {"k", `{"schema":{"properties":{"a":{"type":"null"}}},"default":{"a":"secret"}}`, []string{"/default/a type"}},
		"a remote schema":  {"k", `{"schema":{"$ref":"http://169.254.169.254/latest"},"default":1}`, []string{"/schema reference"}},
		"a tiny number":    {"k", `{"schema":{"minimum":1e-999999999},"default":1}`, []string{"/schema out_of_range"}},
		"NUL":              {"k", `{"schema":{},"default":"\u0000"}`, []string{"/default not_text"}},
	} {
		res := c.Do("PUT", "/v1/preference-definitions/"+tc.key, tc.body)
		p := res.WantProblem(http.StatusUnprocessableEntity, "validation_failed")
		if got := violations(p); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
		if strings.Contains(string(res.Body), "secret") || strings.Contains(string(res.Body), "169.254") {
			t.Errorf("%s: a rejected value is repeated: %s", name, res.Body)
		}
	}
}

// violations renders the violations of a problem as "place code".
func violations(p web.Problem) []string {
	var out []string
	for _, v := range p.Errors {
		place := v.Parameter
		if v.Pointer != nil {
			place = *v.Pointer
		}
		out = append(out, place+" "+v.Code)
	}
	slices.Sort(out)
	return out
}

func TestPreferencesOverHTTP(t *testing.T) {
	w, c := newClient(t)
	w.define("theme", `{"enum":["light","dark"]}`, `"light"`)
	w.define("editor", editorSchema, `{"tabs":4}`)
	path := "/v1/users/" + ids.Format(userIDPrefix, w.person()) + "/preferences"

	wantBody := func(res *webtest.Response, want string) *webtest.Response {
		t.Helper()
		if got := strings.TrimSpace(string(res.Want(http.StatusOK).Body)); got != want {
			t.Errorf("answered %s, want %s", got, want)
		}
		return res
	}
	first := wantBody(c.Do("GET", path, nil), `{"editor":{"tabs":4},"theme":"light"}`).Header.Get("Etag")
	wantBody(c.Do("GET", path+"?source=true", nil),
		`{"editor":{"value":{"tabs":4},"source":"default"},"theme":{"value":"light","source":"default"}}`)
	c.Do("GET", path, nil, "If-None-Match", first).Want(http.StatusNotModified)

	res := wantBody(c.Do("PATCH", path, `{"theme":"dark","editor":{"wrap":true}}`,
		"If-Match", first, "Content-Type", "application/merge-patch+json"), `{"editor":{"tabs":4,"wrap":true},"theme":"dark"}`)
	second := res.Header.Get("Etag")
	c.Do("PATCH", path, `{"theme":"light"}`, "If-Match", first).WantProblem(http.StatusPreconditionFailed, "precondition_failed")
	wantBody(c.Do("GET", path, nil, "If-None-Match", first), `{"editor":{"tabs":4,"wrap":true},"theme":"dark"}`)
	res = wantBody(c.Do("PUT", path+"/editor", `{"value":{"tabs":8}}`, "If-Match", second), `{"editor":{"tabs":8},"theme":"dark"}`)
	third := res.Header.Get("Etag")
	c.Do("DELETE", path+"/editor", nil, "If-Match", second).WantProblem(http.StatusPreconditionFailed, "precondition_failed")
	fourth := c.Do("DELETE", path+"/editor", nil, "If-Match", third).Want(http.StatusNoContent).Header.Get("Etag")
	res = wantBody(c.Do("GET", path+"?source=true", nil),
		`{"editor":{"value":{"tabs":4},"source":"default"},"theme":{"value":"dark","source":"user"}}`)
	if res.Header.Get("Etag") != fourth {
		t.Errorf("ETag %s after a DELETE that answered %s", res.Header.Get("Etag"), fourth)
	}
	c.Do("PUT", "/v1/preference-definitions/theme", `{"schema":{"const":"light"},"default":"light"}`).
		WantProblem(http.StatusConflict, "preference_schema_breaks_values")
	c.Do("DELETE", "/v1/preference-definitions/theme", nil).WantProblem(http.StatusConflict, "preference_in_use")
}

func TestBadPreferencesOverHTTP(t *testing.T) {
	w, c := newClient(t)
	w.define("theme", `{"type":"object","properties":{"size":{"maximum":9}}}`, `{}`)
	user := "/v1/users/" + ids.Format(userIDPrefix, w.person()) + "/preferences"
	for name, tc := range map[string]struct {
		method, path, body string
		status             int
		code               string
		want               []string
	}{
		"all at once":   {"PATCH", user, `{"theme":{"size":10},"nothing":"secret"}`, 422, "validation_failed", []string{"/nothing preference_not_defined", "/theme/size too_large"}},
		"no object":     {"PATCH", user, `["secret"]`, 422, "validation_failed", []string{" type"}},
		"null":          {"PATCH", user, `null`, 422, "validation_failed", []string{" type"}},
		"twice":         {"PATCH", user, `{"theme":null,"theme":{}}`, 422, "validation_failed", []string{"/theme duplicate_member"}},
		"no JSON":       {"PATCH", user, `{"theme":`, 400, "json_malformed", nil},
		"no body":       {"PATCH", user, ``, 400, "body_required", nil},
		"a tiny number": {"PATCH", user, `{"theme":{"size":1e-999999999}}`, 422, "validation_failed", []string{"/theme out_of_range"}},
		"NUL":           {"PATCH", user, `{"theme":{"x":"\u0000"}}`, 422, "validation_failed", []string{"/theme/x not_text"}},
		"a NUL key":     {"PATCH", user, `{"\u0000":1}`, 422, "validation_failed", nil},
		"large":         {"PATCH", user, `{"theme":{"x":"` + strings.Repeat("x", MaxValues-10) + `"}}`, 422, "preferences_too_large", nil},
		"PUT":           {"PUT", user + "/theme", `{"value":{"size":10}}`, 422, "validation_failed", []string{"/value/size too_large"}},
		"PUT of none":   {"PUT", user + "/theme", `{}`, 422, "validation_failed", []string{"/value required"}},
		"PUT elsewhere": {"PUT", user + "/nothing", `{"value":1}`, 404, "preference_not_defined", nil},
		"DELETE":        {"DELETE", user + "/nothing", ``, 404, "preference_not_defined", nil},
		"nobody":        {"PATCH", "/v1/users/" + ids.Format(userIDPrefix, ids.New()) + "/preferences", `{}`, 404, "user_not_found", nil},
		"another id":    {"PATCH", "/v1/users/ses_01h455vb4pex5vsknk084sn02q/preferences", `{}`, 404, "id_malformed", nil},
	} {
		res := c.Do(tc.method, tc.path, tc.body)
		p := res.WantProblem(tc.status, tc.code)
		if got := violations(p); tc.want != nil && !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
		if strings.Contains(string(res.Body), "secret") {
			t.Errorf("%s: a rejected value is repeated: %s", name, res.Body)
		}
	}
	if body := strings.TrimSpace(string(c.Do("GET", user, nil).Body)); body != `{"theme":{}}` {
		t.Errorf("left behind: %s", body)
	}
}

func TestWhoMayDoWhatOverHTTP(t *testing.T) {
	w, c := newClient(t)
	w.define("theme", `{}`, `1`)
	self, other := ids.Format(userIDPrefix, w.person()), ids.Format(userIDPrefix, w.person())
	user := "/v1/users/" + self + "/preferences"
	const definitions = "/v1/preference-definitions"
	for _, call := range []struct {
		method, path string
		body         any
		allowed      []string
	}{
		{"GET", definitions, nil, []string{"st_self", "st_other", readKey, writeKey, defineKey}},
		{"GET", definitions + "/theme", nil, []string{"st_self", "st_other", readKey, writeKey, defineKey}},
		{"PUT", definitions + "/theme", json.RawMessage(`{"schema":{},"default":1}`), []string{defineKey}},
		{"DELETE", definitions + "/nothing", nil, []string{defineKey}},
		{"GET", user, nil, []string{"st_self", readKey}},
		{"PATCH", user, json.RawMessage(`{}`), []string{"st_self", writeKey}},
		{"PUT", user + "/theme", json.RawMessage(`{"value":2}`), []string{"st_self", writeKey}},
		{"DELETE", user + "/theme", nil, []string{"st_self", writeKey}},
	} {
		c.As("").Do(call.method, call.path, call.body).Want(http.StatusUnauthorized)
		for _, credential := range []string{"st_self", "st_other", readKey, writeKey, defineKey} {
			token := strings.NewReplacer("self", self, "other", other).Replace(credential)
			status := c.As(token).Do(call.method, call.path, call.body).Status
			refused := status == http.StatusForbidden || status == http.StatusNotFound && credential == "st_other"
			if refused == slices.Contains(call.allowed, credential) {
				t.Errorf("%s %s as %s: %d", call.method, call.path, credential, status)
			}
		}
	}
}

// FuzzPatch sends any body as a patch: it is applied or refused, never an internal error, and what is then stored still
// satisfies its schema.
func FuzzPatch(f *testing.F) {
	for _, body := range []string{
		`{"theme":null}`, `{"theme":{"a":[1e300,"\ud83d\ude00"]}}`, `{"theme":{"size":1e-999}}`, `{"":0,"a/b~":{}}`, `[`, "{\"\xff\":1}",
	} {
		f.Add([]byte(body))
	}
	w := newWorld(f, rollout.Direct)
	const schema = `{"type":"object","maxProperties":2,"properties":{"size":{"multipleOf":0.1}}}`
	w.define("theme", schema, `{"size":1}`)
	server := webtest.NewServer(f, w.db)
	w.Routes(server.API())
	path := "/v1/users/" + ids.Format(userIDPrefix, w.person()) + "/preferences"
	call := func(t *testing.T, method string, body []byte) *httptest.ResponseRecorder {
		t.Helper()
		req := httptest.NewRequestWithContext(t.Context(), method, path, bytes.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+webtest.RootKey)
		res := httptest.NewRecorder()
		server.Handler().ServeHTTP(res, req)
		return res
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		switch status := call(t, http.MethodPatch, body).Code; status {
		case http.StatusOK, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		default:
			t.Fatalf("status %d for %q", status, body)
		}
		var holds struct{ Theme json.RawMessage }
		if err := json.Unmarshal(call(t, http.MethodGet, nil).Body.Bytes(), &holds); err != nil {
			t.Fatalf("after %q: %v", body, err)
		}
		if bad := mustCompile(t, schema).violations("", webtest.Decode(t, string(holds.Theme))); len(bad) > 0 {
			t.Fatalf("%q was stored as %s: %v", body, holds.Theme, bad)
		}
	})
}

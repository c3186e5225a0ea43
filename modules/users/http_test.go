package users

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/web"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

// sessionsOf takes st_ and a user's id for a session of that user.
type sessionsOf struct{}

func (sessionsOf) VerifySession(_ context.Context, token string) (userID, sessionID uuid.UUID, err error) {
	userID, err = ids.Parse(IDPrefix, strings.TrimPrefix(token, web.SessionTokenPrefix))
	return userID, uuid.Nil, err
}

func serve(t *testing.T, options ...func(*Config)) (*world, *webtest.Client) {
	t.Helper()
	w := newWorld(t, options...)
	server := webtest.NewServer(t, w.db, func(cfg *web.Config, deps *web.Deps) {
		deps.Sessions = sessionsOf{}
		cfg.Limits = map[string]web.Limit{confirmLimit: {Requests: 1000, Per: time.Minute}, "sign_up": {Requests: 2, Per: time.Hour}}
	})
	w.module.Routes(server.API())
	return w, webtest.New(t, server).As(webtest.RootKey)
}

func create(t *testing.T, c *webtest.Client, email string) user {
	t.Helper()
	var u user
	c.Do("POST", "/v1/users", map[string]any{"email": email, "password": good, "name": "Ada"}).Want(201).JSON(&u)
	return u
}

func TestUserOverHTTP(t *testing.T) {
	_, c := serve(t)
	var u, got user
	created := c.Do("POST", "/v1/users", `{"email":" ada@example.com ","metadata":{"big":1e300,"n":{"a":1}}}`).Want(201)
	created.JSON(&u)
	if created.Header.Get("Location") != "/v1/users/"+u.ID || created.Header.Get("ETag") != `"1"` || u.Email != "ada@example.com" ||
		string(u.Metadata) != `{"big":1e300,"n":{"a":1}}` {
		t.Errorf("created %+v, %v", u, created.Header)
	}
	path := "/v1/users/" + u.ID
	c.Do("GET", path, nil).Want(200).JSON(&got)
	c.Do("GET", path, nil, "If-None-Match", `W/"1"`).Want(304)
	c.Do("GET", path, nil, "If-None-Match", `"0"`).Want(200)
	c.Do("POST", "/v1/users", `{"email":"ADA@example.com"}`).WantProblem(409, "user_email_taken")

	c.Do("PATCH", path, `{"name":"Ada"}`, "If-Match", `"7"`).WantProblem(412, "precondition_failed")
	c.Do("PATCH", path, `{"name":"Ada","metadata":{"n":{"a":null,"b":2}}}`, "If-Match", `"1"`,
		"Content-Type", "application/merge-patch+json").Want(200).JSON(&got)
	if got.Version != 2 || got.Name != "Ada" || string(got.Metadata) != `{"big":1e300,"n":{"b":2}}` {
		t.Errorf("patched %+v", got)
	}
	c.Do("PATCH", path, `{"name":null,"metadata":null}`).Want(200).JSON(&got)
	if got.Name != "" || string(got.Metadata) != `{}` {
		t.Errorf("patched with nulls %+v", got)
	}
	c.Do("PATCH", path, `{"metadata":{"t":"<b>&c>","n":1.50,"l":[{"x":null}]}}`).Want(200)
	c.Do("PATCH", path, `{"metadata":{"m":1}}`).Want(200).JSON(&got)
	if string(got.Metadata) != `{"l":[{"x":null}],"m":1,"n":1.50,"t":"<b>&c>"}` {
		t.Errorf("what a patch does not name became %s", got.Metadata)
	}
	many := make(map[string]any)
	for i := range 1400 {
		many[fmt.Sprintf("%010d", i)] = nil // over 16 KiB, though nothing comes of it
	}
	c.Do("PATCH", path, map[string]any{"metadata": many}).Want(200)
	wrong := c.Do("PATCH", path, `{"email":"x","name":"a\nb","status":"zz"}`).WantProblem(422, "validation_failed")
	var pointers []string
	for _, e := range wrong.Errors {
		pointers = append(pointers, *e.Pointer)
	}
	slices.Sort(pointers)
	if got := strings.Join(pointers, " "); got != "/email /name /status" {
		t.Errorf("a patch that is all wrong is told of %s", got)
	}
	for body, code := range map[string]string{
		`{"email":null}`: "validation_failed", `{"status":"deleted"}`: "validation_failed", `{"id":"x"}`: "validation_failed",
		`{"metadata":[]}`: "validation_failed", `{"name":1}`: "validation_failed",
	} {
		c.Do("PATCH", path, body).WantProblem(422, code)
	}

	c.Do("DELETE", path, nil, "If-Match", `"1"`).WantProblem(412, "precondition_failed")
	c.Do("DELETE", path, nil).Want(204)
	c.Do("DELETE", path, nil).Want(204)
	c.Do("GET", path, nil).Want(200).JSON(&got)
	if got.Status != "deleted" {
		t.Errorf("status %s", got.Status)
	}
	c.Do("PATCH", path, `{"name":"x"}`).WantProblem(409, "user_deleted")
	c.Do("POST", path+"/restore", nil, "If-Match", `"1"`).WantProblem(412, "precondition_failed")
	c.Do("POST", path+"/restore", nil).Want(200)
	c.Do("POST", path+"/restore", nil).WantProblem(409, "user_not_deleted")
	c.Do("DELETE", path+"?erase=true", nil).Want(204)
	c.Do("GET", path, nil).WantProblem(404, "user_not_found")
	c.Do("POST", path+"/restore", nil).WantProblem(404, "user_not_found")
	for _, id := range []string{"nope", "ses_01h455vb4pex5vsknk084sn02q", "user_", "%00", "user_01h455vb4pex5vsknk084sn02q%2f"} {
		c.Do("GET", "/v1/users/"+id, nil).Want(404)
	}
}

func TestSelfOverHTTP(t *testing.T) {
	_, c := serve(t)
	ada, bob := create(t, c, "ada@example.com"), create(t, c, "bob@example.com")
	self, path := c.As(web.SessionTokenPrefix+ada.ID), "/v1/users/"+ada.ID
	self.Do("GET", path, nil).Want(200)
	self.Do("PATCH", path, `{"name":"Countess"}`).Want(200)
	self.Do("PATCH", path, `{"email":"x@example.com"}`).Want(403)
	self.Do("PATCH", path, `{"status":"active"}`).Want(403)
	self.Do("PATCH", path, `{"metadata":{}}`).Want(403)
	self.Do("DELETE", path, nil).Want(403)
	self.Do("GET", "/v1/users", nil).Want(403)
	self.Do("GET", "/v1/users/"+bob.ID, nil).Want(404)
	self.Do("PUT", path+"/password", map[string]string{"password": "another-Quiet-9"}).WantProblem(422, "validation_failed")
	self.Do("PUT", path+"/password", map[string]string{"password": "another-Quiet-9", "current_password": "wrong"}).
		WantProblem(422, "current_password_wrong")
	self.Do("PUT", path+"/password", map[string]string{"password": "another-Quiet-9", "current_password": good}).Want(204)
	c.As("").Do("POST", "/v1/users", `{"email":"eve@example.com"}`).Want(401)
}

func TestPublicSignUp(t *testing.T) {
	_, c := serve(t, func(cfg *Config) { cfg.PublicSignUp = true })
	anyone := c.As("")
	for _, email := range []string{"a@example.com", "b@example.com"} {
		anyone.Do("POST", "/v1/users", map[string]string{"email": email}).Want(201)
	}
	anyone.Do("POST", "/v1/users", `{"email":"c@example.com"}`).WantProblem(429, "rate_limited")
	for i := range 5 { // the application itself is not limited as one of its clients
		c.Do("POST", "/v1/users", fmt.Sprintf(`{"email":"own%d@example.com","metadata":{"plan":"team"}}`, i)).Want(201)
	}
}

func TestMetadataIsTheApplications(t *testing.T) {
	_, c := serve(t, func(cfg *Config) { cfg.PublicSignUp = true })
	c.As("").Do("POST", "/v1/users", `{"email":"a@example.com","metadata":{"role":"admin"}}`).WantProblem(403, "forbidden")
}

func TestPagesOverHTTP(t *testing.T) {
	_, c := serve(t)
	for i := range 5 {
		c.Do("POST", "/v1/users", map[string]any{"email": fmt.Sprintf("u%d@example.com", i)}).Want(201)
	}
	var seen []string
	next := "/v1/users?limit=2"
	for next != "" {
		var page struct {
			Users      []user  `json:"users"`
			NextCursor *string `json:"next_cursor"`
		}
		answer := c.Do("GET", next, nil).Want(200)
		answer.JSON(&page)
		for _, u := range page.Users {
			seen = append(seen, u.Email[:2])
		}
		next = ""
		if page.NextCursor != nil {
			next = "/v1/users?limit=2&cursor=" + *page.NextCursor
			c.Do("GET", next+"&q=x", nil).WantProblem(422, "cursor_invalid")
			if !strings.Contains(answer.Header.Get("Link"), *page.NextCursor) {
				t.Errorf("Link %q", answer.Header.Get("Link"))
			}
		}
	}
	if got := strings.Join(seen, " "); got != "u4 u3 u2 u1 u0" {
		t.Errorf("pages: %s", got)
	}
	for _, query := range []string{"limit=0", "limit=201", "status=gone", "created_after=yesterday", "cursor=AAAA", "unknown=1", "q=%00", "email=%ff"} {
		c.Do("GET", "/v1/users?"+query, nil).Want(422)
	}
}

func TestImportAndExportOverHTTP(t *testing.T) {
	_, c := serve(t)
	lines := strings.Join([]string{
		`{"email":"a@example.com","name":"A","email_verified":true}`, `{"email":"bad"}`, `{"email":"A@example.com"}`, `{`, ``,
		`{"email":"b@example.com","password_hash":"$2a$10$3fv7Dk4a2ZfQSH55ORO.YODcXEGJQFVnOMH97uYPaIFspea5dfhAW"}`, `{"email":"c@example.com","x":1}`,
	}, "\n")
	run := func() string {
		body := c.Do("POST", "/v1/users/import", lines, "Content-Type", "application/x-ndjson").Want(200).Body
		var out []string
		for line := range strings.Lines(string(body)) {
			var r importResult
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprint(r.Line, r.Status))
		}
		return strings.Join(out, " ")
	}
	if got := run(); got != "1created 2invalid 3exists 4invalid 6created 7invalid" {
		t.Errorf("import: %s", got)
	}
	if got := run(); got != "1exists 2invalid 3exists 4invalid 6exists 7invalid" {
		t.Errorf("import again: %s", got)
	}
	export := string(c.Do("GET", "/v1/users/export", nil).Want(200).Body)
	if strings.Count(export, "\n") != 2 || strings.Contains(export, "$2a$") || !strings.Contains(export, `"b@example.com"`) {
		t.Errorf("export: %s", export)
	}
	c.Do("POST", "/v1/users/import", `{}`).Want(415)
}

func TestMailedTokensOverHTTP(t *testing.T) {
	_, c := serve(t)
	u := create(t, c, "ada@example.com")
	var mailed struct {
		Token string `json:"token"`
	}
	var got user
	c.Do("POST", "/v1/users/"+u.ID+"/email-verifications", nil).Want(201).JSON(&mailed)
	anyone := c.As("")
	anyone.Do("POST", "/v1/email-verifications/confirm", map[string]string{"token": mailed.Token}).Want(200).JSON(&got)
	if !got.EmailVerified {
		t.Error("not verified")
	}
	anyone.Do("POST", "/v1/email-verifications/confirm", map[string]string{"token": mailed.Token}).WantProblem(422, "token_invalid")
	c.Do("POST", "/v1/password-resets", `{"email":"ada@example.com"}`).Want(201).JSON(&mailed)
	anyone.Do("POST", "/v1/password-resets/confirm", map[string]string{"token": mailed.Token, "password": "another-Quiet-9"}).Want(204)
	c.Do("POST", "/v1/password-resets", `{"email":"nobody@example.com"}`).Want(201).JSON(&mailed)
	anyone.Do("POST", "/v1/password-resets/confirm", map[string]string{"token": mailed.Token, "password": "another-Quiet-9"}).
		WantProblem(422, "token_invalid")
}

func TestUserAppendsItself(t *testing.T) {
	at := time.Date(2026, 11, 23, 14, 5, 6, 789_000, time.UTC)
	webtest.SameJSON(t, user{})
	u := user{
		ID: ids.Format(IDPrefix, ids.New()), Email: "ada@example.com", EmailVerified: true, Name: "Ada \"<é>\"\n", Status: "active",
		Metadata: web.RawJSON(`{"a":1}`), Version: 7, CreatedAt: at, UpdatedAt: at.Add(time.Hour), LastSignInAt: &at,
	}
	webtest.SameJSON(t, u)
	cursor := "cursor"
	webtest.SameJSON(t, listOutputBody{Users: []user{}})
	webtest.SameJSON(t, listOutputBody{Users: []user{u, {}, u}, NextCursor: &cursor})
}

// BenchmarkPage is a page of 50 users becoming JSON; the floor is encoding/json.
func BenchmarkPage(b *testing.B) {
	page := listOutputBody{Users: make([]user, 50)}
	for i := range page.Users {
		page.Users[i] = viewOf(User{ID: ids.New(), Email: "ada@example.com", Name: "Ada", Status: Active, CreatedAt: time.Now(), UpdatedAt: time.Now()})
	}
	b.Run("appended", func(b *testing.B) {
		var out []byte
		for b.Loop() {
			out = page.AppendJSON(out[:0])
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		for b.Loop() {
			if _, err := json.Marshal(page); err != nil {
				b.Fatal(err)
			}
		}
	})
}

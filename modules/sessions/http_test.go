package sessions

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/web"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

const (
	readKey  = "sk_reads_sessions_0123456789"
	writeKey = "sk_writes_sessions_0123456789"
)

// User stands in the OpenAPI document for the schema that the users module registers.
type User struct {
	ID string `json:"id"`
}

type api struct {
	fixture
	*webtest.Client
}

func newAPI(t *testing.T, options ...func(*web.Config, *web.Deps)) api {
	t.Helper()
	f := newFixture(t)
	options = append([]func(*web.Config, *web.Deps){func(c *web.Config, d *web.Deps) {
		c.Limits = map[string]web.Limit{signInLimit: {Requests: 1000, Per: time.Minute}}
		c.Keys = []web.APIKey{
			webtest.Key("reader", readKey, "sessions:read"), webtest.Key("writer", writeKey, "sessions:write"),
		}
		d.Sessions = f.Service
	}}, options...)
	s := webtest.NewServer(t, f.db, options...)
	f.Routes(s.API())
	web.Register(s.API(), web.Operation{ID: "user", Method: http.MethodGet, Path: "/v1/user", Auth: web.Auth{Public: true}},
		func(context.Context, *struct{}) (*struct{ Body User }, error) { return &struct{ Body User }{}, nil })
	return api{f, webtest.New(t, s)}
}

type credentials struct {
	Email    string `json:"email"`
	Password string `json:"password"`
}

type signedIn struct {
	Session session `json:"session"`
	Token   string  `json:"token"`
	User    User    `json:"user"`
}

func (a api) signIn(t *testing.T, email string) signedIn {
	t.Helper()
	var in signedIn
	a.Do(http.MethodPost, "/v1/sessions", credentials{email, password}, "User-Agent", "test/1").Want(http.StatusCreated).JSON(&in)
	return in
}

// TestKeyedSignInThatFailedMayBeTriedAgain: counting the attempt is not what the request is for.
func TestKeyedSignInThatFailedMayBeTriedAgain(t *testing.T) {
	a := newAPI(t)
	a.users.add(t, "ada@example.com")
	signIn := func() *webtest.Response {
		return a.Do(http.MethodPost, "/v1/sessions", credentials{"ada@example.com", password}, "Idempotency-Key", "once")
	}
	a.users.fail = errs.ErrBusy
	signIn().Want(http.StatusServiceUnavailable)
	a.users.fail = nil
	signIn().Want(http.StatusCreated)
}

func TestHTTPSession(t *testing.T) {
	a := newAPI(t)
	ada := ids.Format("user", a.users.add(t, "ada@example.com"))
	in := a.signIn(t, "ada@example.com")
	if in.User.ID != ada || in.Session.UserID != ada || !in.Session.Current || in.Session.IP != "127.0.0.1" || in.Session.UserAgent != "test/1" {
		t.Errorf("signed in %+v", in)
	}

	var got signedIn
	a.As(in.Token).Do(http.MethodGet, "/v1/sessions/current", nil).Want(http.StatusOK).JSON(&got)
	if got.Session != in.Session || got.User != in.User {
		t.Errorf("current %+v, want %+v", got, in)
	}

	var rotated signedIn
	a.As(in.Token).Do(http.MethodPost, "/v1/sessions/current/rotate", nil).Want(http.StatusOK).JSON(&rotated)
	if rotated.Session.ID != in.Session.ID || rotated.Token == in.Token {
		t.Errorf("rotated %+v", rotated)
	}
	a.As(in.Token).Do(http.MethodGet, "/v1/sessions/current", nil).WantProblem(http.StatusUnauthorized, "credential_invalid")
	a.As(rotated.Token).Do(http.MethodDelete, "/v1/sessions/current", nil).Want(http.StatusNoContent)
	a.As(rotated.Token).Do(http.MethodGet, "/v1/sessions/current", nil).WantProblem(http.StatusUnauthorized, "credential_invalid")
}

func TestHTTPSignInRefused(t *testing.T) {
	a := newAPI(t)
	eve := a.users.add(t, "eve@example.com")
	wantError(t, "suspend", a.users.setStatus(t.Context(), a.Service, eve, "suspended"), nil)
	sign := func(email, password string) *webtest.Response {
		t.Helper()
		return a.Do(http.MethodPost, "/v1/sessions", credentials{email, password})
	}
	sign("eve@example.com", password).WantProblem(http.StatusForbidden, "user_suspended")
	unknown := sign("bob@example.com", "x").WantProblem(http.StatusUnauthorized, "invalid_credentials")
	wrong := sign("eve@example.com", "x").WantProblem(http.StatusUnauthorized, "invalid_credentials")
	unknown.RequestID, wrong.RequestID = "", ""
	if fmt.Sprint(unknown) != fmt.Sprint(wrong) {
		t.Errorf("an unknown address is answered with %v, a wrong password with %v", unknown, wrong)
	}
	a.Do(http.MethodPost, "/v1/sessions", `{"email":"a@example.com"}`).WantProblem(http.StatusUnprocessableEntity, "validation_failed")
}

func TestHTTPSignInLimits(t *testing.T) {
	a := newAPI(t, func(c *web.Config, _ *web.Deps) {
		c.Limits = map[string]web.Limit{signInLimit: {Requests: 5, Per: time.Hour}}
	})
	for range 3 {
		a.Do(http.MethodPost, "/v1/sessions", credentials{"ada@example.com", "x"}).Want(http.StatusUnauthorized)
	}
	res := a.Do(http.MethodPost, "/v1/sessions", credentials{"ada@example.com", "x"})
	res.WantProblem(http.StatusTooManyRequests, "rate_limited")
	if got := res.Header.Values("RateLimit"); len(got) != 2 || res.Header.Get("Retry-After") == "" {
		t.Errorf("RateLimit %q, Retry-After %q", got, res.Header.Get("Retry-After"))
	}
	a.Do(http.MethodPost, "/v1/sessions", credentials{"bob@example.com", "x"}).Want(http.StatusUnauthorized)
	a.Do(http.MethodPost, "/v1/sessions", credentials{"cyd@example.com", "x"}).WantProblem(http.StatusTooManyRequests, "rate_limited")
}

func TestHTTPIntrospect(t *testing.T) {
	a := newAPI(t)
	ada := ids.Format("user", a.users.add(t, "ada@example.com"))
	in := a.signIn(t, "ada@example.com")
	introspect := func(token string) string {
		t.Helper()
		res := a.As(readKey).Do(http.MethodPost, "/v1/sessions/introspect", map[string]string{"token": token})
		return string(res.Want(http.StatusOK).Body)
	}
	want := fmt.Sprintf(`{"active":true,"sub":%q,"sid":%q,"iat":%d,"exp":%d,"user":{"id":%q}}`+"\n",
		ada, in.Session.ID, in.Session.CreatedAt.Unix(), in.Session.ExpiresAt.Unix(), ada)
	if got := introspect(in.Token); got != want {
		t.Errorf("introspected %s, want %s", got, want)
	}
	a.As(in.Token).Do(http.MethodDelete, "/v1/sessions/current", nil).Want(http.StatusNoContent)
	for _, token := range []string{in.Token, "", "st_", "sk_something"} {
		if got := introspect(token); got != "{\"active\":false}\n" {
			t.Errorf("introspected %s, want an inactive token", got)
		}
	}
}

func TestHTTPDevices(t *testing.T) {
	a := newAPI(t)
	ada := ids.Format("user", a.users.add(t, "ada@example.com"))
	a.users.add(t, "bob@example.com")
	one, two, bob := a.signIn(t, "ada@example.com"), a.signIn(t, "ada@example.com"), a.signIn(t, "bob@example.com")
	path := "/v1/users/" + ada + "/sessions"

	var list struct{ Sessions []session }
	a.As(one.Token).Do(http.MethodGet, path, nil).Want(http.StatusOK).JSON(&list)
	two.Session.Current = false
	if len(list.Sessions) != 2 || list.Sessions[0] != two.Session || list.Sessions[1] != one.Session {
		t.Errorf("listed %+v", list.Sessions)
	}
	a.As(readKey).Do(http.MethodGet, "/v1/users/"+ids.Format("user", ids.New())+"/sessions", nil).Want(http.StatusOK).JSON(&list)
	if len(list.Sessions) != 0 {
		t.Errorf("nobody has %d sessions", len(list.Sessions))
	}
	a.As(bob.Token).Do(http.MethodGet, path, nil).WantProblem(http.StatusNotFound, "not_found")
	a.As(bob.Token).Do(http.MethodDelete, "/v1/sessions/"+two.Session.ID, nil).WantProblem(http.StatusNotFound, "session_not_found")

	for range 2 {
		a.As(one.Token).Do(http.MethodDelete, "/v1/sessions/"+two.Session.ID, nil).Want(http.StatusNoContent)
	}
	a.As(two.Token).Do(http.MethodGet, "/v1/sessions/current", nil).Want(http.StatusUnauthorized)
	a.As(writeKey).Do(http.MethodDelete, "/v1/sessions/"+bob.Session.ID, nil).Want(http.StatusNoContent)
	a.As(bob.Token).Do(http.MethodGet, "/v1/sessions/current", nil).Want(http.StatusUnauthorized)

	a.signIn(t, "ada@example.com")
	var revoked struct{ Revoked int }
	for _, c := range []struct {
		credential, query string
		want              int
	}{{one.Token, "?except_current=true", 1}, {one.Token, "?except_current=true", 0}, {writeKey, "", 1}} {
		a.As(c.credential).Do(http.MethodDelete, path+c.query, nil).Want(http.StatusOK).JSON(&revoked)
		if revoked.Revoked != c.want {
			t.Errorf("%s revoked %d, want %d", c.query, revoked.Revoked, c.want)
		}
	}
	a.As(writeKey).Do(http.MethodDelete, path+"?except_current=true", nil).WantProblem(http.StatusUnprocessableEntity, "validation_failed")
}

// TestHTTPCallers calls every operation with credentials that it does not take.
func TestHTTPCallers(t *testing.T) {
	a := newAPI(t)
	ada := ids.Format("user", a.users.add(t, "ada@example.com"))
	in := a.signIn(t, "ada@example.com")
	some := ids.Format(IDPrefix, uuid.Must(uuid.NewV7()))
	token := map[string]string{"token": in.Token}
	for _, c := range []struct {
		method, path string
		body         any
		wrongKey     string // lacks the scope, if any key may call it
		session      bool   // sessions may call it
	}{
		{http.MethodGet, "/v1/sessions/current", nil, "", true},
		{http.MethodPost, "/v1/sessions/introspect", token, writeKey, false},
		{http.MethodPost, "/v1/sessions/current/rotate", nil, "", true},
		{http.MethodDelete, "/v1/sessions/current", nil, "", true},
		{http.MethodGet, "/v1/users/" + ada + "/sessions", nil, writeKey, true},
		{http.MethodDelete, "/v1/sessions/" + some, nil, readKey, true},
		{http.MethodDelete, "/v1/users/" + ada + "/sessions", nil, readKey, true},
	} {
		a.Do(c.method, c.path, c.body).WantProblem(http.StatusUnauthorized, "unauthenticated")
		a.As("st_unknown").Do(c.method, c.path, c.body).WantProblem(http.StatusUnauthorized, "credential_invalid")
		if c.wrongKey != "" {
			a.As(c.wrongKey).Do(c.method, c.path, c.body).WantProblem(http.StatusForbidden, "scope_missing")
		} else {
			a.As(webtest.RootKey).Do(c.method, c.path, c.body).WantProblem(http.StatusForbidden, "forbidden")
		}
		if !c.session {
			a.As(in.Token).Do(c.method, c.path, c.body).WantProblem(http.StatusForbidden, "forbidden")
		}
	}
}

func TestSessionAppendsItself(t *testing.T) {
	at := time.Date(2026, 11, 23, 14, 5, 6, 789_000, time.UTC)
	user := userView{web.RawJSON(`{"id":"user"}`)}
	webtest.SameJSON(t, currentOutputBody{User: user})
	webtest.SameJSON(t, currentOutputBody{User: user, Session: session{
		ID: "ses", UserID: "user", CreatedAt: at, LastSeenAt: at.Add(1), ExpiresAt: at.Add(2), IdleExpiresAt: at.Add(3),
		IP: "127.0.0.1", UserAgent: "<\"ä\">", Current: true,
	}})
}

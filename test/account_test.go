//go:build unix

package test

import (
	"crypto/rand"
	"net/http"
	"strings"
	"testing"

	"github.com/strata-accounts/strata/platform/web/webtest"
)

// An account is a user, with what it takes to sign in.
type account struct {
	id, etag              string
	email, password, name string
}

// newPerson makes up who might sign up. Nothing of it may ever be logged.
func (d *deployment) newPerson() account {
	return account{
		email:    d.secret("ada." + strings.ToLower(rand.Text()) + "@example.com"),
		password: d.secret(rand.Text()),
		name:     d.secret("Ada " + rand.Text()),
	}
}

// signUp creates a user.
func (s *server) signUp() account {
	s.t.Helper()
	a := s.deployment.newPerson()
	res := s.root.Do("POST", "/v1/users", map[string]any{"email": a.email, "password": a.password, "name": a.name}).Want(http.StatusCreated)
	var created struct{ ID string }
	res.JSON(&created)
	a.id, a.etag = created.ID, res.Header.Get("Etag")
	if res.Header.Get("Location") != a.path() {
		s.t.Errorf("a user is created at %q, want %q", res.Header.Get("Location"), a.path())
	}
	return a
}

func (a account) path() string { return "/v1/users/" + a.id }

// A device is where an account is signed in.
type device struct {
	*webtest.Client // with the session's token
	session, token  string
}

// signIn opens a session.
func (s *server) signIn(a account) device {
	s.t.Helper()
	var answer struct {
		Token   string
		Session struct{ ID string }
	}
	s.Do("POST", "/v1/sessions", credentials(a.email, a.password)).Want(http.StatusCreated).JSON(&answer)
	return s.device(answer.Session.ID, answer.Token)
}

// device is an open session as this server's client.
func (s *server) device(session, token string) device {
	return device{Client: s.As(s.deployment.secret(token)), session: session, token: token}
}

func credentials(email, password string) map[string]any {
	return map[string]any{"email": email, "password": password}
}

// wantLive ends the test unless the session is in force.
func (d device) wantLive(t *testing.T) {
	t.Helper()
	var answer struct{ Session struct{ ID string } }
	d.Do("GET", "/v1/sessions/current", nil).Want(http.StatusOK).JSON(&answer)
	if answer.Session.ID != d.session {
		t.Errorf("the token leads to %s, want %s", answer.Session.ID, d.session)
	}
}

// wantDead ends the test unless the session has ended.
func (d device) wantDead(t *testing.T) {
	t.Helper()
	d.Do("GET", "/v1/sessions/current", nil).WantProblem(http.StatusUnauthorized, "credential_invalid")
}

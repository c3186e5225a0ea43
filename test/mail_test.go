//go:build unix

package test

import (
	"net/http"
	"testing"
)

// TestMailedTokens plays the application that mails tokens, and the user who brings them back.
func TestMailedTokens(t *testing.T) {
	t.Parallel()
	s := deploy(t).start()
	ada := s.signUp()

	verification := s.mailedToken("/v1/users/"+ada.id+"/email-verifications", nil)
	var user struct {
		EmailVerified bool `json:"email_verified"`
	}
	confirm := map[string]any{"token": verification}
	if s.Do("POST", "/v1/email-verifications/confirm", confirm).Want(http.StatusOK).JSON(&user); !user.EmailVerified {
		t.Error("the e-mail address is not verified")
	}
	s.Do("POST", "/v1/email-verifications/confirm", confirm).WantProblem(http.StatusUnprocessableEntity, "token_invalid")

	session := s.signIn(ada)
	forgotten, password := ada.password, s.deployment.newPerson().password
	reset := s.mailedToken("/v1/password-resets", map[string]any{"email": ada.email})
	unknown := s.mailedToken("/v1/password-resets", map[string]any{"email": s.deployment.newPerson().email})
	for _, useless := range []string{unknown, verification, reset + "x"} {
		s.Do("POST", "/v1/password-resets/confirm", map[string]any{"token": useless, "password": password}).
			WantProblem(http.StatusUnprocessableEntity, "token_invalid")
	}
	session.wantLive(t)
	s.Do("POST", "/v1/password-resets/confirm", map[string]any{"token": reset, "password": password}).Want(http.StatusNoContent)
	session.wantDead(t)
	s.Do("POST", "/v1/password-resets/confirm", map[string]any{"token": reset, "password": password}).
		WantProblem(http.StatusUnprocessableEntity, "token_invalid")
	s.Do("POST", "/v1/sessions", credentials(ada.email, forgotten)).WantProblem(http.StatusUnauthorized, "invalid_credentials")
	ada.password = password
	s.signIn(ada).wantLive(t)
}

// mailedToken asks for a token on the application's behalf.
func (s *server) mailedToken(path string, body any) string {
	s.t.Helper()
	var answer struct{ Token string }
	s.root.Do("POST", path, body).Want(http.StatusCreated).JSON(&answer)
	return s.deployment.secret(answer.Token)
}

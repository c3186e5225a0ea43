//go:build unix

package test

import (
	"net/http"
	"strconv"
	"testing"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// TestSignInIsLimited guesses until it is stopped, with the counts in every place that they can be kept in: a limiter
// that is down neither opens sign-in nor closes it for everybody.
func TestSignInIsLimited(t *testing.T) {
	const attempts = 3
	redis, gone := dbtest.Redis(t), dbtest.Redis(t)
	gone.Stop()
	for name, setting := range map[string]string{
		"in memory": "REDIS_URL=", "in Redis": "REDIS_URL=" + redis.URL, "without the Redis that is configured": "REDIS_URL=" + gone.URL,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := deploy(t, setting, "STRATA_LIMITS__SIGN_IN="+strconv.Itoa(attempts)+"/1m").start()
			ada := s.deployment.newPerson()
			for i := range attempts {
				res := s.Do("POST", "/v1/sessions", credentials(ada.email, ada.password)).Want(http.StatusUnauthorized)
				if res.Header.Get("Ratelimit") == "" || res.Header.Get("Ratelimit-Policy") == "" {
					t.Errorf("attempt %d is answered without the limit's state: %v", i+1, res.Header)
				}
			}
			res := s.Do("POST", "/v1/sessions", credentials(ada.email, ada.password))
			res.WantProblem(http.StatusTooManyRequests, "rate_limited")
			if wait, err := strconv.Atoi(res.Header.Get("Retry-After")); err != nil || wait < 1 || wait > 60 {
				t.Errorf("Retry-After is %q", res.Header.Get("Retry-After"))
			}
			s.root.Do("GET", "/v1/users", nil).Want(http.StatusOK) // nothing else is limited
		})
	}
}

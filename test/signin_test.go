//go:build unix

package test

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"
)

// TestSignInTakesAlike compares how long it takes to refuse an e-mail address that nobody has with how long it takes to
// refuse a wrong password. A server that verifies no hash for the former is faster by the hash's whole cost, which is
// most of the time: a factor of ten and more. The samples are taken in a random order, so that neither falls in step
// with the server's garbage collections, and medians are compared, so that a busy machine slows both alike.
func TestSignInTakesAlike(t *testing.T) {
	const samples, most = 30, 1.5
	s := deploy(t).start()
	ada, nobody := s.signUp(), s.deployment.newPerson()
	refuse := func(a account) time.Duration {
		start := time.Now()
		s.Do("POST", "/v1/sessions", credentials(a.email, nobody.password)).WantProblem(http.StatusUnauthorized, "invalid_credentials")
		return time.Since(start)
	}
	refuse(ada) // warms up
	refuse(nobody)
	var wrongPassword, wrongEmail []time.Duration
	for len(wrongPassword) < samples || len(wrongEmail) < samples {
		if rand.IntN(2) == 0 {
			wrongPassword = append(wrongPassword, refuse(ada))
		} else {
			wrongEmail = append(wrongEmail, refuse(nobody))
		}
	}
	known, unknown := median(wrongPassword), median(wrongEmail)
	t.Logf("medians: %s for a wrong password, %s for a wrong e-mail address", known, unknown)
	if ratio := float64(known) / float64(unknown); ratio > most || ratio < 1/most {
		t.Errorf("a wrong password is refused in %s, a wrong e-mail address in %s", known, unknown)
	}
}

func median(samples []time.Duration) time.Duration {
	slices.Sort(samples)
	return samples[len(samples)/2]
}

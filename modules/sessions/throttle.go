package sessions

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"strings"
	"time"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/web"
)

// throttle limits how many passwords can be tried on an account. Clients are limited by their address besides, whatever
// the account (the operation's RateLimit).
//
// Only failures count: an attempt is counted before the password is verified, so that many at once cannot outrun the
// count, and forgiven unless it fails. A count starts with the first failure and is forgotten a window later, whatever
// is tried meanwhile. It is kept by the hash of the e-mail address, so that addresses which no account has are limited
// alike and reveal nothing.
//
// Nobody can lock an account's owner out: a client from which the account has been signed in to in the last months is
// not subject to the failures of others, but has a count of its own.
//
// The counts are in PostgreSQL, without which there is no sign-in: they hold for all instances, and no outage of
// anything else lifts them or keeps everybody out.
type throttle struct {
	repo  Repository
	limit web.Limit
	log   *slog.Logger
}

// attempt names the counts that a sign-in from this address falls under.
func (t throttle) attempt(email, ip string) Attempt {
	account := strings.ToLower(strings.TrimSpace(email))
	return Attempt{
		Account: sha256.Sum256([]byte("account\x00" + account)),
		Client:  sha256.Sum256([]byte("client\x00" + account + "\x00" + web.Network(ip))),
		Max:     t.limit.Requests,
		Window:  t.limit.Per,
	}
}

// admit counts an attempt. Errors: web.ErrRateLimited.
func (t throttle) admit(ctx context.Context, a Attempt) (Tally, error) {
	tally, err := t.repo.CountAttempt(db.Aside(ctx), a)
	if err != nil {
		return Tally{}, err
	}
	d := web.Decision{
		Allowed: tally.Failures <= a.Max, Limit: t.limit, Remaining: a.Max - tally.Failures, ResetAfter: tally.ResetAfter,
	}
	if !d.Allowed {
		d.RetryAfter = tally.ResetAfter
	}
	web.ReportLimit(ctx, "sign_in_account", d)
	return tally, d.Err()
}

// forgive takes back an attempt that was none at guessing, also for a client that has gone. Where it fails, the account
// has one failure less to spare until the window ends.
func (t throttle) forgive(ctx context.Context, tally Tally) {
	ctx, cancel := context.WithTimeout(db.Aside(context.WithoutCancel(ctx)), forgiveTimeout)
	defer cancel()
	if err := t.repo.ForgiveAttempt(ctx, tally.Key); err != nil {
		t.log.WarnContext(ctx, "a sign-in is counted as a failure", "error", err)
	}
}

const forgiveTimeout = 2 * time.Second

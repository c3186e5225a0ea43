package web

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/strata-accounts/strata/platform/errs"
)

// ErrRateLimited reports a caller that is over a limit.
var ErrRateLimited = errs.New(errs.TooMany, "rate_limited", "Too many requests. Wait before trying again.")

// Limit allows Requests in every window of length Per; a caller that was idle may use them all at once.
type Limit struct {
	Requests int
	Per      time.Duration
}

// Decision is what a Limiter says about one request.
type Decision struct {
	Allowed    bool
	Limit      Limit
	Remaining  int           // requests that would be allowed right now
	RetryAfter time.Duration // until the next request is allowed; 0 when Allowed
	ResetAfter time.Duration // until the caller may use the whole limit again
}

// Limiter counts requests by key. Implementations are safe for concurrent use. An error means that the limiter itself
// is out of order, not that the caller is over its limit.
type Limiter interface {
	Allow(ctx context.Context, key string, limit Limit) (Decision, error)
}

// Err returns nil for an allowed request, and ErrRateLimited with the time to wait for one that is not.
func (d Decision) Err() error {
	if d.Allowed {
		return nil
	}
	return ErrRateLimited.After(max(d.RetryAfter, time.Second))
}

// ReportLimit writes a decision into the response of the request that ctx belongs to: RateLimit-Policy, RateLimit
// (draft-ietf-httpapi-ratelimit-headers-10), where policy names the limit.
func ReportLimit(ctx context.Context, policy string, d Decision) {
	r := requestFrom(ctx)
	if r == nil {
		return
	}
	name := strconv.Quote(policy)
	r.header.Add("RateLimit-Policy", fmt.Sprintf("%s;q=%d;w=%s", name, d.Limit.Requests, seconds(d.Limit.Per)))
	r.header.Add("RateLimit", fmt.Sprintf("%s;r=%d;t=%s", name, max(d.Remaining, 0), seconds(d.ResetAfter)))
}

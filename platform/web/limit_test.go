package web_test

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/strata-accounts/strata/platform/db/dbtest"
	"github.com/strata-accounts/strata/platform/web"
)

func redisLimiter(t *testing.T, url string) *web.RedisLimiter {
	t.Helper()
	opts, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	opts.ContextTimeoutEnabled, opts.MaxRetries, opts.DialerRetries = true, -1, 1
	client := redis.NewClient(opts)
	t.Cleanup(func() { _ = client.Close() })
	return web.NewRedisLimiter(client, "test")
}

// allowed counts how many of n requests pass.
func allowed(t *testing.T, l web.Limiter, key string, limit web.Limit, n int) int {
	t.Helper()
	passed := 0
	for range n {
		d, err := l.Allow(t.Context(), key, limit)
		if err != nil {
			t.Fatal(err)
		}
		if d.Allowed {
			passed++
			if d.Remaining != limit.Requests-passed || d.Err() != nil {
				t.Errorf("request %d: %+v", passed, d)
			}
		} else if d.RetryAfter <= 0 || d.RetryAfter > limit.Per || d.Err() == nil {
			t.Errorf("refused with %+v", d)
		}
	}
	return passed
}

func TestLimiters(t *testing.T) {
	shared := redisLimiter(t, dbtest.Redis(t).URL)
	for name, l := range map[string]web.Limiter{
		"memory": web.NewMemoryLimiter(100), "redis": shared,
		"failover": web.NewFailoverLimiter(shared, web.NewMemoryLimiter(100), slog.New(slog.DiscardHandler)),
	} {
		t.Run(name, func(t *testing.T) {
			limit := web.Limit{Requests: 5, Per: time.Hour}
			if got := allowed(t, l, name+"a", limit, 8); got != 5 {
				t.Errorf("%d requests passed, want 5", got)
			}
			if got := allowed(t, l, name+"b", limit, 1); got != 1 {
				t.Error("another key is limited too")
			}
		})
	}
}

func TestMemoryLimiterIsBounded(t *testing.T) {
	l := web.NewMemoryLimiter(10)
	limit := web.Limit{Requests: 1, Per: time.Hour}
	for i := range 100 {
		allowed(t, l, strconv.Itoa(i), limit, 1)
	}
	if got := allowed(t, l, "99", limit, 1); got != 0 {
		t.Error("a recent key was forgotten")
	}
	if got := allowed(t, l, "0", limit, 1); got != 1 {
		t.Error("an old key is still remembered")
	}
}

// TestFailoverKeepsLimiting: with Redis gone, nobody is locked out and nobody is unlimited.
func TestFailoverKeepsLimiting(t *testing.T) {
	limit := web.Limit{Requests: 5, Per: time.Hour}
	for name, fail := range map[string]func(*dbtest.RedisServer){
		"stopped": (*dbtest.RedisServer).Stop, "frozen": (*dbtest.RedisServer).Pause,
	} {
		t.Run(name, func(t *testing.T) {
			server := dbtest.Redis(t)
			l := web.NewFailoverLimiter(redisLimiter(t, server.URL), web.NewMemoryLimiter(100), slog.New(slog.DiscardHandler))
			fail(server)
			if got := allowed(t, l, "a", limit, 8); got != 5 {
				t.Errorf("%d requests passed without Redis, want 5", got)
			}
			if name == "frozen" {
				server.Resume()
			}
		})
	}
}

type brokenLimiter struct{}

func (brokenLimiter) Allow(context.Context, string, web.Limit) (web.Decision, error) {
	return web.Decision{}, errors.New("broken")
}

func TestFailoverDoesNotBlameRedisForItsCaller(t *testing.T) {
	var log lockedBuffer
	l := web.NewFailoverLimiter(brokenLimiter{}, web.NewMemoryLimiter(1), slog.New(slog.NewTextHandler(&log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Allow(ctx, "a", web.Limit{Requests: 1, Per: time.Hour}); err != nil || log.String() != "" {
		t.Errorf("a canceled request: %v, log %q", err, log.String())
	}
}

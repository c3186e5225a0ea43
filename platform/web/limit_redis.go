package web

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
)

// RedisLimiter counts for all instances that share a Redis. Keys are stored hashed: they may hold addresses.
type RedisLimiter struct {
	limiter *redis_rate.Limiter
	prefix  string
}

// NewRedisLimiter returns a limiter on client whose keys begin with "rate:", which is the library's, and prefix.
func NewRedisLimiter(client redis.UniversalClient, prefix string) *RedisLimiter {
	return &RedisLimiter{redis_rate.NewLimiter(client), prefix}
}

// Allow implements Limiter.
func (l *RedisLimiter) Allow(ctx context.Context, key string, limit Limit) (Decision, error) {
	sum := sha256.Sum256([]byte(key))
	res, err := l.limiter.Allow(ctx, l.prefix+":"+hex.EncodeToString(sum[:]), redis_rate.Limit{
		Rate: limit.Requests, Burst: limit.Requests, Period: limit.Per,
	})
	if err != nil {
		return Decision{}, err
	}
	return Decision{
		Allowed: res.Allowed > 0, Limit: limit, Remaining: res.Remaining,
		RetryAfter: max(res.RetryAfter, 0), ResetAfter: res.ResetAfter,
	}, nil
}

const (
	// failoverTimeout is how long a shared limiter may take before the local one answers instead.
	failoverTimeout = 100 * time.Millisecond
	// failoverPause is how long a shared limiter that failed is left alone.
	failoverPause = time.Second
)

// FailoverLimiter asks a shared limiter, and a local one while that is out of order: nobody is locked out, and every
// instance keeps limiting.
type FailoverLimiter struct {
	shared, local Limiter
	log           *slog.Logger
	pausedTill    atomic.Int64 // in Unix nanoseconds
}

// NewFailoverLimiter returns a limiter that never fails as long as local does not.
func NewFailoverLimiter(shared, local Limiter, log *slog.Logger) *FailoverLimiter {
	return &FailoverLimiter{shared: shared, local: local, log: log}
}

// Allow implements Limiter.
func (l *FailoverLimiter) Allow(ctx context.Context, key string, limit Limit) (Decision, error) {
	now := time.Now()
	if l.pausedTill.Load() > now.UnixNano() {
		return l.local.Allow(ctx, key, limit)
	}
	sctx, cancel := context.WithTimeout(ctx, failoverTimeout)
	defer cancel()
	d, err := l.shared.Allow(sctx, key, limit)
	if err == nil {
		return d, nil
	}
	if ctx.Err() == nil { // not the caller's own haste
		l.pausedTill.Store(now.Add(failoverPause).UnixNano())
		l.log.WarnContext(ctx, "shared rate limiter failed; limiting in this process", "error", err)
	}
	return l.local.Allow(ctx, key, limit)
}

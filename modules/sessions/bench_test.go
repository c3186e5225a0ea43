package sessions

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/cache/cachetest"
	"github.com/strata-accounts/strata/platform/ids"
)

func BenchmarkByToken(b *testing.B) {
	d := openDB(b)
	postgres := NewPostgresRepository(d)
	s := mustCreate(b, postgres, ids.New())
	cachetest.Benchmark(b, d, func(c *cache.Cache) cachetest.Read {
		cached := NewCacheRepository(postgres, c, userKey)
		read := func(r Reader) func(ctx context.Context) error {
			return func(ctx context.Context) error {
				_, err := r.ByToken(ctx, s.TokenHash)
				return err
			}
		}
		return cachetest.Read{Key: cacheKey(s.TokenHash), Cached: read(cached), Postgres: read(postgres)}
	})
}

// BenchmarkVerify finds a session by its token, and whether its user is active: what each request of an application asks.
// The user stands for one of the users module, and costs PostgreSQL nothing.
func BenchmarkVerify(b *testing.B) {
	type user struct {
		ID     uuid.UUID
		Email  string
		Status string
	}
	d := openDB(b)
	postgres := NewPostgresRepository(d)
	s := mustCreate(b, postgres, ids.New())
	cachetest.Benchmark(b, d, func(c *cache.Cache) cachetest.Read {
		sessions := NewCacheRepository(postgres, c, userKey)
		users := cache.For(c, "user", cache.Options{}, cache.ByUUID(func(_ context.Context, id uuid.UUID) (user, error) {
			return user{id, "ada@example.com", "active"}, nil
		}))
		verify := func(ctx context.Context) error {
			ctx = cache.Together(ctx)
			found, err := sessions.ByToken(ctx, s.TokenHash)
			if err == nil {
				_, err = users.Get(ctx, cache.UUID(found.UserID))
			}
			return err
		}
		return cachetest.Read{Key: cacheKey(s.TokenHash), Cached: verify, Postgres: func(ctx context.Context) error {
			_, err := postgres.ByToken(ctx, s.TokenHash)
			return err
		}}
	})
}

// BenchmarkNote is what noting the use of a session costs its request.
func BenchmarkNote(b *testing.B) {
	l := newSeenLog(nil, SeenPolicy{Idle: day, Interval: day})
	id := ids.New()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.note(id, time.Now(), false)
		}
	})
}

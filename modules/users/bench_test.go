package users

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/cache/cachetest"
	"github.com/strata-accounts/strata/platform/ids"
)

func BenchmarkByID(b *testing.B) {
	d := openDB(b)
	postgres := NewPostgresRepository(d)
	u, err := postgres.Create(b.Context(), User{
		ID: ids.New(), Email: "ada@example.com", Name: "Ada Lovelace", Status: Active, Metadata: json.RawMessage(`{"plan":"free"}`),
	})
	if err != nil {
		b.Fatal(err)
	}
	cachetest.Benchmark(b, d, func(c *cache.Cache) cachetest.Read {
		cached := NewCacheRepository(postgres, c)
		read := func(r Reader) func(ctx context.Context) error {
			return func(ctx context.Context) error {
				_, err := r.ByID(ctx, u.ID)
				return err
			}
		}
		return cachetest.Read{Key: CacheKey(u.ID), Cached: read(cached), Postgres: read(postgres)}
	})
}

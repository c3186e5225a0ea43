package preferences

import (
	"context"
	"errors"
	"testing"

	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/cache/cachetest"
	"github.com/strata-accounts/strata/platform/ids"
)

// BenchmarkRead reads what the cache keeps of the module, each entity by itself, and both, from which the map is made that
// holds for a user. A miss of both is one of the user's: the definitions are everybody's.
func BenchmarkRead(b *testing.B) {
	d := openDB(b)
	postgres := NewPostgresRepository(d)
	for key, value := range map[string]string{"theme": `"light"`, "language": `"en"`, "page_size": `50`, "notifications": `{"email":true}`} {
		mustDefine(b, postgres, key, `{}`, value)
	}
	userID := ids.New()
	mustSet(b, postgres, userID, map[string]string{"theme": `"dark"`})

	values := func(ctx context.Context, r Reader) error {
		_, err := r.Values(ctx, userID)
		return err
	}
	definitions := func(ctx context.Context, r Reader) error {
		_, err := r.Definitions(ctx)
		return err
	}
	both := func(ctx context.Context, r Reader) error { return errors.Join(definitions(ctx, r), values(ctx, r)) }
	for _, of := range []struct {
		name, key string
		read      func(context.Context, Reader) error
	}{
		{"values", cacheKey(userID), values},
		{"definitions", definitionsKey, definitions},
		{"both", cacheKey(userID), both},
	} {
		b.Run(of.name, func(b *testing.B) {
			cachetest.Benchmark(b, d, func(c *cache.Cache) cachetest.Read {
				cached := NewCacheRepository(postgres, c)
				read := func(r Reader) func(context.Context) error {
					return func(ctx context.Context) error { return of.read(ctx, r) }
				}
				return cachetest.Read{Key: of.key, Cached: read(cached), Postgres: read(postgres)}
			})
		})
	}
}

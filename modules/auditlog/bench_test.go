package auditlog

import (
	"context"
	"testing"

	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/cache/cachetest"
)

// BenchmarkByID reads an event without an origin, which is one entity, and one with an address, for which the cache also
// has to know that its subject has not been erased.
func BenchmarkByID(b *testing.B) {
	d := openDB(b)
	postgres := NewPostgresRepository(d)
	for name, event := range map[string]Event{
		"without an origin": {Action: "job.ran", Actor: Ref{Type: System}},
		"with an origin": {
			Action: "user.updated", Actor: Ref{"api_key", "backend"}, Target: Ref{User, "user_1"}, IP: "2001:db8::1", UserAgent: "curl/8",
		},
	} {
		id := record(b, &Service{repo: postgres}, event)[0].ID
		b.Run(name, func(b *testing.B) {
			cachetest.Benchmark(b, d, func(c *cache.Cache) cachetest.Read {
				cached := NewCacheRepository(postgres, c)
				read := func(r Reader) func(context.Context) error {
					return func(ctx context.Context) error {
						_, err := r.ByID(ctx, id)
						return err
					}
				}
				return cachetest.Read{Key: eventKind + ":" + id.String(), Cached: read(cached), Postgres: read(postgres)}
			})
		})
	}
}

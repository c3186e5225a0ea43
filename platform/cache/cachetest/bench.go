package cachetest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/strata-accounts/strata/internal/benchtest"
	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// Read is a module's read of one entity: through the cache, and without.
type Read struct {
	Key              string // as cache.Touch takes it
	Cached, Postgres func(ctx context.Context) error
}

// Benchmark benchmarks a read that each tier answers, each beside its floor: a map with a TTL, a GET of the same bytes
// from Redis, and PostgresRepository where no tier knows the entity.
func Benchmark(b *testing.B, d *db.DB, open func(c *cache.Cache) Read) {
	server, prefix := dbtest.Redis(b), ""
	start := func(b *testing.B, entries int) (*cache.Cache, Read, func(tier string)) {
		b.Helper()
		prefix = uuid.NewString()
		c, metrics := Start(b, d, func(cfg *cache.Config) {
			cfg.RedisURL, cfg.KeyPrefix, cfg.Entries, cfg.CheckEvery = server.URL, prefix, entries, 0
		})
		r := open(c)
		return c, r, func(tier string) {
			for before := hits(b, metrics, tier); hits(b, metrics, tier) < before+2; time.Sleep(10 * time.Millisecond) {
				must(b, r.Cached(b.Context()))
			}
		}
	}
	b.Run("process", func(b *testing.B) {
		_, r, warm := start(b, 1000)
		warm("process")
		benchtest.Pair{Floor: mapWithTTL(b), One: func() { must(b, r.Cached(b.Context())) }, Times: 1000}.Run(b)
	})
	b.Run("redis", func(b *testing.B) {
		c, r, warm := start(b, 0)
		warm("redis")
		keys := c.Redis().Keys(b.Context(), prefix+"*:e:"+r.Key).Val()
		if len(keys) != 1 {
			b.Fatalf("%d keys", len(keys))
		}
		benchtest.Pair{
			Floor: func() {
				ctx, cancel := context.WithTimeout(b.Context(), time.Second)
				defer cancel()
				must(b, c.Redis().Get(ctx, keys[0]).Err())
			},
			One: func() { must(b, r.Cached(b.Context())) },
		}.Run(b)
	})
	b.Run("miss", func(b *testing.B) {
		c, r, warm := start(b, 1000)
		warm("process")
		benchtest.Pair{
			Floor: func() { must(b, r.Postgres(b.Context())) },
			One:   func() { must(b, r.Cached(b.Context())) },
			Before: func() {
				time.Sleep(time.Millisecond) // the fill of the turn before, which nobody waits for
				must(b, c.Touch(b.Context(), r.Key))
			},
		}.Run(b)
	})
}

// mapWithTTL is the least that a cache in process can be.
func mapWithTTL(b *testing.B) func() {
	b.Helper()
	var mu sync.Mutex
	expires := map[string]time.Time{"a": time.Now().Add(time.Hour)}
	return func() {
		mu.Lock()
		e := expires["a"]
		mu.Unlock()
		if time.Now().After(e) {
			b.Fatal("expired")
		}
	}
}

func must(b *testing.B, err error) { //nolint:thelper // Helper would cost as much as what is measured
	if err != nil {
		b.Helper()
		b.Fatal(err)
	}
}

// hits counts the reads that a tier has answered.
func hits(b *testing.B, metrics *prometheus.Registry, tier string) (n float64) {
	b.Helper()
	families, err := metrics.Gather()
	must(b, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "strata_cache_reads_total" && l.GetValue() == tier {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

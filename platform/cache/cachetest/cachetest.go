// Package cachetest runs caches for the tests of modules.
package cachetest

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/db/dbtest"
)

const patience = 30 * time.Second // on a busy machine

// OpenDB returns an empty database with these migrations and the cache's, whose GORM sessions know of the cache.
func OpenDB(t testing.TB, migrations ...db.Migration) *db.DB {
	t.Helper()
	d := dbtest.Open(t, append([]db.Migration{cache.Migrations()}, migrations...)...)
	if err := d.Gorm(t.Context()).Use(cache.Plugin()); err != nil {
		t.Fatal(err)
	}
	return d
}

// Deployments configure a cache for each place that it can keep its entries in. Those in Redis share one server, which
// ends with the test, and each cache has its own keys there.
func Deployments(t testing.TB) map[string]func(*cache.Config) {
	t.Helper()
	redis := dbtest.Redis(t)
	both := func(c *cache.Config) {
		c.RedisURL, c.KeyPrefix = redis.URL, uuid.NewString()
		c.RedisTimeout = 250 * time.Millisecond // a busy machine under the race detector
	}
	return map[string]func(*cache.Config){
		"process":       func(*cache.Config) {},
		"redis":         func(c *cache.Config) { both(c); c.Entries = 0 },
		"redis+process": both,
	}
}

// Start returns a cache that runs until the test ends, and its metrics, once it serves. Configure changes the defaults. A
// cache that does not end cleanly fails the test.
func Start(t testing.TB, d *db.DB, configure func(*cache.Config)) (*cache.Cache, *prometheus.Registry) {
	t.Helper()
	cfg, metrics := cache.Defaults(), prometheus.NewRegistry()
	configure(&cfg)
	c, err := cache.Open(t.Context(), cfg, d, slog.New(slog.DiscardHandler), metrics)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, c.Close()); err != nil {
			t.Error(err)
		}
	})
	await(t, cfg, metrics)
	return c, metrics
}

// await returns when all tiers serve: before that, a test of what is cached would test the database alone.
func await(t testing.TB, cfg cache.Config, metrics *prometheus.Registry) {
	t.Helper()
	for deadline := time.Now().Add(patience); !serves(t, cfg, metrics); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the cache does not serve after %s", patience)
		}
	}
}

func serves(t testing.TB, cfg cache.Config, metrics *prometheus.Registry) bool {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	ratios := map[string]float64{}
	for _, f := range families {
		ratios[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
	}
	return (cfg.Entries == 0 || ratios["strata_cache_process_leased_ratio"] == 1) &&
		(cfg.RedisURL == "" || ratios["strata_cache_redis_believed_ratio"] == 1)
}

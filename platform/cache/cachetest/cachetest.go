// Package cachetest runs caches for the tests of modules.
package cachetest

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/db"
)

// Start returns a cache that runs until the test ends, and its metrics. Configure changes the defaults. A cache that does
// not end cleanly fails the test.
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
	return c, metrics
}

package main

import (
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// TestFirstKey starts instances at the same moment on one new state directory: all take the key that is kept there, and
// one of them shows it.
func TestFirstKey(t *testing.T) {
	configs := make([]config, 16)
	dir := filepath.Join(t.TempDir(), "new")
	shown := make([]generatedKey, len(configs))
	var instances sync.WaitGroup
	for i := range configs {
		configs[i].StateDir = dir
		instances.Go(func() {
			if err := makeStateDir(&configs[i]); err != nil {
				t.Error(err)
			}
			var err error
			if shown[i], err = firstKey(&configs[i]); err != nil {
				t.Error(err)
			}
		})
	}
	instances.Wait()
	times := 0
	for i := range configs {
		if configs[i].Server.RootKey != configs[0].Server.RootKey || len(configs[i].Server.RootKey) < 32 {
			t.Error("the instances have different keys, or none")
		}
		if shown[i].key != "" {
			times++
		}
	}
	if times != 1 {
		t.Errorf("the key is shown %d times", times)
	}
}

// TestEmptyKeyFile wants no server that nobody can call.
func TestEmptyKeyFile(t *testing.T) {
	cfg := config{StateDir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(cfg.StateDir, keyName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if key, err := firstKey(&cfg); err == nil {
		t.Errorf("no error; %+v", key)
	}
}

// TestUnusableDatabase wants the reason on the one line that an operator sees.
func TestUnusableDatabase(t *testing.T) {
	u, err := url.Parse(dbtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/missing"
	for at, reason := range map[string]string{
		u.String():                               `database "missing" does not exist`,
		"postgres://u:s3cret@127.0.0.1:1/strata": "connection refused",
	} {
		cfg, err := loadConfig([]string{"DATABASE_URL=" + at})
		if err != nil {
			t.Fatal(err)
		}
		_, err = openMigrated(t.Context(), cfg, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), reason) || strings.ContainsAny(err.Error(), "\n\t") {
			t.Errorf("%v; want %s, on one line", err, reason)
		}
	}
}

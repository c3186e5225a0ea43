package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/strata-accounts/strata/platform/rollout"
)

func TestDefaults(t *testing.T) {
	c, err := loadConfig(nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Database.MaxOpen != 50 || c.Database.MaxIdle != 10 || c.Cache.TTL != time.Minute || c.Stages["users"] != rollout.Cached ||
		c.Server.Addr != "127.0.0.1:8080" || c.Modules.Sessions.Lifetime != 720*time.Hour || c.StateDir == "" {
		t.Errorf("defaults %+v", c)
	}
}

// TestEveryKeyIsASetting fails when configs/default.yaml and the settings differ.
func TestEveryKeyIsASetting(t *testing.T) {
	c, err := loadConfig(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.shown {
		if s.value == nil {
			t.Errorf("%s is not in configs/default.yaml", s.key)
		}
		name := "STRATA_" + strings.ToUpper(strings.ReplaceAll(s.key, ".", "__"))
		if !strings.Contains(s.key, ".") {
			continue
		}
		if _, err := loadConfig([]string{name + "=\x00not a value"}); err != nil && !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfigFiles(t *testing.T) {
	for _, name := range []string{"production.yaml", "migration.yaml"} {
		env := []string{
			"STRATA_CONFIG=" + filepath.Join("..", "..", "configs", name), "DATABASE_URL=postgres://localhost/strata",
			"STRATA_ROOT_KEY=" + strings.Repeat("k", 32), "STRATA_STATE_DIR=" + t.TempDir(),
		}
		c, err := loadConfig(env)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if name == "migration.yaml" && c.Stages["preferences"] != rollout.Direct {
			t.Errorf("%s: stages %v", name, c.Stages)
		}
	}
}

func TestEnvironmentWins(t *testing.T) {
	file := filepath.Join(t.TempDir(), "strata.yaml")
	if err := os.WriteFile(file, []byte("users:\n  stage: direct\n  import_batch: 7\nserver:\n  trusted_proxies: [10.0.0.0/8]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := loadConfig([]string{
		"STRATA_CONFIG=" + file, "STRATA_USERS__STAGE=shadow", "STRATA_ADDR=:9", "STRATA_LIMITS__SIGN_IN=5/2m",
		`STRATA_AUTH__KEYS=[{"name":"crm","hash":"` + strings.Repeat("a", 64) + `","scopes":["users:read"]}]`, "STRATA_SOMETHING=else",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Stages["users"] != rollout.Shadow || c.Modules.Users.ImportBatch != 7 || c.Server.Addr != ":9" || c.Server.Limits["sign_in"].Requests != 5 ||
		len(c.Server.Keys) != 1 || c.Server.Keys[0].Name != "crm" || len(c.Server.TrustedProxies) != 1 {
		t.Errorf("config %+v", c)
	}
}

// TestBadValues expects one line that names the key, says what is wrong and what is allowed, and does not show the value.
func TestBadValues(t *testing.T) {
	for env, want := range map[string]string{
		"STRATA_USERS__STAGE=s3cret":                                   "users.stage (STRATA_USERS__STAGE): is unknown; must be one of direct",
		"STRATA_DATABASE__MAX_OPEN=s3cret":                             "database.max_open (STRATA_DATABASE__MAX_OPEN): is not a whole number; must be one from 2",
		"STRATA_DATABASE__MAX_OPEN=0":                                  "is out of range; must be from 2",
		"STRATA_DATABASE__MAX_IDLE=60":                                 "database.max_idle: is more than database.max_open",
		"STRATA_CACHE__TTL=s3cret":                                     "cache.ttl (STRATA_CACHE__TTL): is not a duration",
		"STRATA_CACHE__TTL=61s":                                        "is out of range; must be from 1s to 1m0s",
		"STRATA_USERS__PUBLIC_SIGN_UP=s3cret":                          "must be one of them",
		"STRATA_ADDR=s3cret":                                           "server.addr (STRATA_ADDR): is not an address",
		"STRATA_SERVER__TRUSTED_PROXIES=s3cret":                        "must be addresses or CIDRs",
		"STRATA_ROOT_KEY=s3cret":                                       "auth.root_key (STRATA_ROOT_KEY): is too short",
		"STRATA_AUTH__KEYS=[{\"name\":\"s3cret\"}]":                    "auth.keys (STRATA_AUTH__KEYS): entry 1 lacks",
		"DATABASE_URL=postgres://u:s3cret@h:port/x":                    "database.url (DATABASE_URL): is not understood",
		"REDIS_URL=http://s3cret":                                      "redis.url (REDIS_URL): is not understood",
		"REDIS_URL=redis://:s3cret@h:1?no_such=1":                      "redis.url (REDIS_URL): is not understood",
		"REDIS_URL=redis://:s3cret@h:1?master_name=m&route_randomly=1": "redis.url (REDIS_URL): asks for replicas",
		"STRATA_LIMITS__SIGN_IN=s3cret":                                "limits.sign_in (STRATA_LIMITS__SIGN_IN): is not a limit",
		"STRATA_NO__SUCH_KEY=s3cret":                                   "STRATA_NO__SUCH_KEY: there is no key no.such_key",
		"STRATA_PROFILE=production":                                    "database.url (DATABASE_URL): is empty; the production profile requires",
		"STRATA_CONFIG=/nonexistent/strata.yaml":                       "STRATA_CONFIG: /nonexistent/strata.yaml cannot be read",
	} {
		_, err := loadConfig([]string{env})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", env, err, want)
		}
	}
}

func TestPrintRedacts(t *testing.T) {
	c, err := loadConfig([]string{
		"DATABASE_URL=postgres://u:s3cret@h/x", "REDIS_URL=redis://:s3cret@h:1", "STRATA_ROOT_KEY=s3cret" + strings.Repeat("k", 32),
		"STRATA_AUDITLOG__SIGNING_KEY=s3cret", `STRATA_AUTH__KEYS=[{"name":"crm","hash":"` + strings.Repeat("a", 64) + `","scopes":["users:read"]}]`,
	})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := c.print(&out); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "s3cret") || strings.Contains(out.String(), "aaaa") {
		t.Errorf("a secret is printed:\n%s", &out)
	}
	for _, want := range []string{"postgres://u:[redacted]@h/x", "name: crm", "max_open: 50", "stage: cached"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not printed:\n%s", want, &out)
		}
	}
}

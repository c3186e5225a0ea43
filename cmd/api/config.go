package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	"github.com/open-feature/go-sdk/openfeature"
	"go.opentelemetry.io/otel/trace"

	"github.com/strata-accounts/strata/configs"
	"github.com/strata-accounts/strata/modules/users"
	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/db/embedded"
	"github.com/strata-accounts/strata/platform/rollout"
	"github.com/strata-accounts/strata/platform/telemetry"
	"github.com/strata-accounts/strata/platform/web"
)

// config is the effective configuration: configs/default.yaml, overlaid with the file that STRATA_CONFIG names, overlaid
// with the environment.
type config struct {
	Profile   string
	StateDir  string
	LogFormat string
	LogLevel  string

	Server   web.Config
	Database db.Config
	Cache    cache.Config
	Tracing  telemetry.TracingConfig

	Modules  moduleConfig
	Rollout  rollout.Config
	Source   string                   // of the stages: "table" or "openfeature"
	Stages   map[string]rollout.Stage // by module: where it starts
	Percents map[string]float64

	shown        []shown              // what `config print` shows
	stopPostgres func() error         // set by startPostgres
	traces       trace.TracerProvider // set by startTracing
	hashing      []users.Start        // empty but in a server
}

// production reports whether nothing may be generated or installed.
func (c *config) production() bool { return c.Profile == "production" }

// aliases are the environment names besides STRATA_<SECTION>__<KEY>.
var aliases = map[string]string{
	"DATABASE_URL": "database.url", "REDIS_URL": "redis.url", "STRATA_ADDR": "server.addr",
	"STRATA_ADMIN_ADDR": "server.admin_addr", "STRATA_STATE_DIR": "state_dir", "STRATA_ROOT_KEY": "auth.root_key",
	"STRATA_PROFILE": "profile", "OTEL_EXPORTER_OTLP_ENDPOINT": "tracing.endpoint",
}

// loadConfig reads the configuration. Errors are one line: the key, what is wrong with its value, what is allowed. They
// do not show the value, which may be a secret.
func loadConfig(environ []string) (*config, error) {
	k := koanf.New(".")
	if err := k.Load(rawbytes.Provider(configs.Default), yaml.Parser()); err != nil {
		return nil, fmt.Errorf("configs/default.yaml: %w", err)
	}
	known := k.Keys()
	env := map[string]string{}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	if path := env["STRATA_CONFIG"]; path != "" {
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			return nil, fmt.Errorf("STRATA_CONFIG: %s cannot be read as YAML: %s", path, firstLine(err))
		}
	}
	source, err := overlay(k, env, known)
	if err != nil {
		return nil, err
	}
	for _, key := range k.Keys() {
		if !slices.Contains(known, key) {
			return nil, fmt.Errorf("%s: there is no such key; configs/default.yaml lists all", key)
		}
	}
	c := &config{Stages: map[string]rollout.Stage{}, Percents: map[string]float64{}}
	for _, s := range c.settings() {
		value := k.Get(s.key)
		if err := s.parse(value); err != nil {
			return nil, fmt.Errorf("%s: %w", s.key+source[s.key], err)
		}
		c.shown = append(c.shown, shown{s.key, value, s.redact})
	}
	return c, c.complete()
}

// overlay lays the environment over the file, and says for each key where it came from.
func overlay(k *koanf.Koanf, env map[string]string, known []string) (map[string]string, error) {
	source := map[string]string{}
	for name, value := range env {
		key, ok := aliases[name]
		if rest, prefixed := strings.CutPrefix(name, "STRATA_"); !ok && prefixed && strings.Contains(rest, "__") {
			key, ok = strings.ToLower(strings.ReplaceAll(rest, "__", ".")), true
		}
		if !ok {
			continue
		}
		if !slices.Contains(known, key) {
			return nil, fmt.Errorf("%s: there is no key %s; configs/default.yaml lists all", name, key)
		}
		if err := k.Set(key, value); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		source[key] = " (" + name + ")"
	}
	return source, nil
}

// complete fills in what depends on several keys.
func (c *config) complete() error {
	if c.StateDir == "" {
		c.StateDir = embedded.DefaultStateDir()
	}
	var err error
	if c.StateDir, err = filepath.Abs(c.StateDir); err != nil {
		return fmt.Errorf("state_dir: %w", err)
	}
	c.Modules.Keys.StateDir = c.StateDir
	c.Server.Version, c.Tracing.Version = apiVersion, apiVersion
	switch {
	case c.Database.MaxIdle > c.Database.MaxOpen:
		return fmt.Errorf("database.max_idle: is more than database.max_open; must be at most that")
	case c.Cache.NegativeTTL > c.Cache.TTL:
		return fmt.Errorf("cache.negative_ttl: is longer than cache.ttl; must be at most that")
	case c.Cache.Entries == 0 && c.Cache.RedisURL == "":
		return fmt.Errorf("cache.entries: is 0 without redis.url; must be at least 1 where the cache is the process' memory")
	case c.production() && c.Database.URL == "":
		return fmt.Errorf("database.url (DATABASE_URL): is empty; the production profile requires a postgres:// URL")
	case c.production() && c.Server.RootKey == "" && len(c.Server.Keys) == 0:
		return fmt.Errorf("auth.root_key (STRATA_ROOT_KEY): is empty; the production profile requires it, or auth.keys")
	case c.production() && c.Modules.Keys.SigningKey == "":
		if info, err := os.Stat(c.StateDir); err != nil || !info.IsDir() {
			return fmt.Errorf("auditlog.signing_key: is empty and state_dir does not exist; give the key, or a directory that is kept")
		}
	}
	return nil
}

// flags returns where the stages come from in place of the table: the OpenFeature provider that the process was given.
func (c *config) flags() *rollout.FlagSource {
	if c.Source != "openfeature" {
		return nil
	}
	return rollout.NewFlagSource(openfeature.NewClient("strata"))
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

const day = 24 * time.Hour

// settings binds every key to its place, its form and its range.
func (c *config) settings() []setting {
	s, d := &c.Server, &c.Database
	s.Limits = map[string]web.Limit{}
	return append([]setting{
		{"profile", oneOf(&c.Profile, "development", "production"), nil},
		{"state_dir", text(&c.StateDir), nil},

		{"server.addr", address(&s.Addr, false), nil},
		{"server.admin_addr", address(&s.AdminAddr, true), nil},
		{"server.read_header_timeout", duration(&s.ReadHeaderTimeout, time.Millisecond, time.Hour), nil},
		{"server.read_timeout", duration(&s.ReadTimeout, time.Millisecond, time.Hour), nil},
		{"server.write_timeout", duration(&s.WriteTimeout, time.Millisecond, time.Hour), nil},
		{"server.idle_timeout", duration(&s.IdleTimeout, time.Millisecond, time.Hour), nil},
		{"server.request_timeout", duration(&s.RequestTimeout, time.Millisecond, time.Hour), nil},
		{"server.drain_timeout", duration(&s.DrainTimeout, time.Millisecond, time.Hour), nil},
		{"server.drain_delay", duration(&s.DrainDelay, 0, time.Hour), nil},
		{"server.trusted_proxies", networks(&s.TrustedProxies), nil},

		{"database.url", postgresURL(&d.URL), redactURL},
		{"database.max_open", integer(&d.MaxOpen, 2, 10_000), nil},
		{"database.max_idle", integer(&d.MaxIdle, 0, 10_000), nil},
		{"database.max_lifetime", duration(&d.MaxLifetime, time.Second, 30*day), nil},
		{"database.max_idle_time", duration(&d.MaxIdleTime, time.Second, 30*day), nil},
		{"database.acquire_timeout", duration(&d.AcquireTimeout, time.Millisecond, time.Minute), nil},
		{"database.tx_timeout", duration(&d.TxTimeout, 100*time.Millisecond, 6*time.Second), nil},

		{"redis.url", redisURL(&c.Cache.RedisURL), redactURL},
		{"redis.timeout", duration(&c.Cache.RedisTimeout, time.Millisecond, 250*time.Millisecond), nil},
		{"redis.key_prefix", keyPrefix(&c.Cache.KeyPrefix), nil},

		{"cache.entries", integer(&c.Cache.Entries, 0, 100_000_000), nil},
		{"cache.bytes", integer(&c.Cache.Bytes, 1<<20, 1<<40), nil},
		{"cache.ttl", duration(&c.Cache.TTL, time.Second, time.Minute), nil},
		{"cache.negative_ttl", duration(&c.Cache.NegativeTTL, time.Millisecond, time.Minute), nil},
		{"cache.check_every", duration(&c.Cache.CheckEvery, 0, time.Hour), nil},

		{"auth.root_key", rootKey(&s.RootKey), redactAll},
		{"auth.keys", apiKeys(&s.Keys), redactKeys},

		{"limits.sign_in", limit(s.Limits, "sign_in"), nil},
		{"limits.sign_up", limit(s.Limits, "sign_up"), nil},
		{"limits.confirm", limit(s.Limits, "confirm"), nil},

		{"rollout.source", oneOf(&c.Source, "table", "openfeature"), nil},
		{"rollout.poll_interval", duration(&c.Rollout.PollInterval, 10*time.Millisecond, time.Second), nil},
		{"rollout.sample", percentage(&c.Rollout.Sample), nil},
		{"rollout.queue", integer(&c.Rollout.Queue, 1, 1_000_000), nil},
		{"rollout.workers", integer(&c.Rollout.Workers, 1, 100), nil},
		{"rollout.min_compared", integer(&c.Rollout.MinCompared, 1, 1_000_000_000), nil},
		{"rollout.min_checked", integer(&c.Rollout.MinChecked, 1, 1_000_000_000), nil},
		{"rollout.compare_role", text(&c.Rollout.CompareRole), nil},

		{"tracing.endpoint", collectorURL(&c.Tracing.Endpoint), redactURL},
		{"tracing.sample", percentage(&c.Tracing.Sample), nil},

		{"log.format", oneOf(&c.LogFormat, "text", "json"), nil},
		{"log.level", oneOf(&c.LogLevel, "debug", "info", "warn", "error"), nil},
	}, c.moduleSettings()...)
}

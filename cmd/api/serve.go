package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/strata-accounts/strata/modules/auditlog"
	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/db/embedded"
	"github.com/strata-accounts/strata/platform/telemetry"
	"github.com/strata-accounts/strata/platform/web"
)

// errPostgresDied ends the server: there is nothing that it could do without.
var errPostgresDied = errors.New("the local PostgreSQL has ended and does not start again; its messages are in the log above")

// serve runs the server until ctx ends; then it lets requests finish, ends the jobs, and stops PostgreSQL if it is ours.
func serve(ctx context.Context, cfg *config, log *slog.Logger, out io.Writer) (err error) {
	spaceCollections()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	if err := makeStateDir(cfg); err != nil {
		return err
	}
	key, err := firstKey(cfg)
	if err != nil {
		return err
	}
	if err := startPostgres(ctx, cfg, log, fail); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cfg.stopPostgres()) }()
	endTracing, err := startTracing(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer endTracing()
	d, err := openMigrated(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()

	registry := telemetry.NewRegistry()
	a, err := newApp(ctx, cfg, d, log, registry)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	listening, err := a.server.Listen(ctx)
	if err != nil {
		return fmt.Errorf("%w; choose another address with STRATA_ADDR or STRATA_ADMIN_ADDR", err)
	}
	jobs, stopJobs := a.run(context.WithoutCancel(ctx), log)
	announce(out, cfg, a.server, key)
	addProcessor()
	err = listening.Serve(ctx)
	log.Info("drained; stopping")
	stopJobs() // after the last request: what requests left to them is done now
	return errors.Join(err, jobs.Wait(), died(ctx))
}

// startTracing tells everything that serves requests where its spans go. The last ones are sent by the function that it
// returns; a collector that does not take them is no failure of the server.
func startTracing(ctx context.Context, cfg *config, log *slog.Logger) (end func(), err error) {
	traces, shutdown, err := telemetry.OpenTracing(ctx, cfg.Tracing)
	if err != nil {
		return nil, err
	}
	cfg.traces, cfg.Database.Traces, cfg.Cache.Traces = traces, traces, traces
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := shutdown(ctx); err != nil {
			log.Warn("the last spans were not sent", "error", err)
		}
	}, nil
}

func died(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, errPostgresDied) {
		return cause
	}
	return nil
}

// app is the server with all that runs beside it.
type app struct {
	server  *web.Server
	modules *modules
	cache   *cache.Cache
	close   func() error
}

func newApp(ctx context.Context, cfg *config, d *db.DB, log *slog.Logger, registry *prometheus.Registry) (*app, error) {
	if err := telemetry.RegisterDBStats(registry, "postgres", d.SQL()); err != nil {
		return nil, err
	}
	registry.MustRegister(d.Collectors()...)
	keys, err := auditlog.OpenKeys(cfg.Modules.Keys)
	if err != nil {
		return nil, err
	}
	cfg.Cache.Bypass = web.NoCache
	a := &app{}
	cfg.Cache.Checked = func(kind, id string, stale bool) { a.modules.ladders.CacheChecked(kind, id, stale) } // once it runs
	c, err := cache.Open(ctx, cfg.Cache, d, log, registry)
	if err != nil {
		return nil, err
	}
	if err := d.Gorm(ctx).Use(cache.Plugin()); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	a.cache, a.close = c, c.Close
	if a.modules, err = newModules(cfg, platform{db: d, cache: c, keys: keys, log: log, metrics: registry}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := a.modules.ladders.Load(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	a.server, err = web.New(cfg.Server, web.Deps{
		Log: log, Metrics: registry, Checks: checks(d), DB: d,
		Sessions: a.modules.sessions.Service, Limiter: newLimiter(c.Redis(), cfg.Cache.KeyPrefix, log), Traces: cfg.traces,
	})
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	a.modules.routes(a.server.API())
	a.modules.ladders.Routes(a.server.AdminAPI())
	return a, nil
}

func checks(d *db.DB) *web.Checks {
	c := &web.Checks{}
	c.Add("database", d.Health)
	c.Add("pool", d.Exhausted)
	var applied atomic.Bool // it takes a query for each, and nothing takes one back
	c.Add("migrations", func(ctx context.Context) error {
		if applied.Load() {
			return nil
		}
		n, err := db.Pending(ctx, d, migrations()...)
		if err == nil && n > 0 {
			err = fmt.Errorf("%d migrations have not been applied", n)
		}
		applied.Store(err == nil)
		return err
	})
	return c
}

// run starts the jobs. They end with the function that it returns, and their last work is done when Wait returns.
func (a *app) run(ctx context.Context, log *slog.Logger) (*errgroup.Group, context.CancelFunc) {
	ctx, stop := context.WithCancel(ctx)
	jobs := &errgroup.Group{}
	for name, job := range map[string]func(context.Context) error{
		"cache": a.cache.Run, "users": a.modules.users.Run, "sessions": a.modules.sessions.Run,
		"auditlog": a.modules.auditlog.Run, "rollout": a.modules.ladders.Run, "idempotency": a.forgetIdempotencyKeys(log),
	} {
		jobs.Go(func() error {
			if err := job(ctx); err != nil && ctx.Err() == nil {
				log.Error("a job has ended", "job", name, "error", err)
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	return jobs, stop
}

func (a *app) forgetIdempotencyKeys(log *slog.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		ticker := time.NewTicker(time.Hour)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
				if _, err := a.server.CleanupIdempotencyKeys(ctx); err != nil {
					log.Error("removal of expired idempotency keys failed", "error", err)
				}
			}
		}
	}
}

// openAPI returns the document of all routes. Nothing that it builds is used but for its types.
func openAPI() ([]byte, error) {
	cfg, err := loadConfig(nil)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	cfg.Server.RootKey = strings.Repeat("x", web.MinRootKey)
	registry := telemetry.NewRegistry()
	c, err := cache.Open(context.Background(), cfg.Cache, nil, log, registry)
	if err != nil {
		return nil, err
	}
	m, err := newModules(cfg, platform{cache: c, log: log, metrics: registry})
	if err != nil {
		return nil, err
	}
	s, err := web.New(cfg.Server, web.Deps{
		Log: log, Metrics: registry, Checks: &web.Checks{}, DB: &db.DB{}, Sessions: m.sessions.Service, Limiter: newLimiter(nil, "", log),
	})
	if err != nil {
		return nil, err
	}
	m.routes(s.API())
	return s.API().OpenAPI()
}

// lastLine is the end of what the driver says of a connection: the attempt that was its last, and what came of it.
func lastLine(err error) string {
	lines := strings.Split(err.Error(), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// startPostgres starts the local PostgreSQL where no other is configured, and ends the server where that cannot be kept running.
func startPostgres(ctx context.Context, cfg *config, log *slog.Logger, fail context.CancelCauseFunc) error {
	cfg.stopPostgres = func() error { return nil }
	if cfg.Database.URL != "" {
		return nil
	}
	server, err := embedded.Start(ctx, embedded.Config{StateDir: cfg.StateDir, Log: log})
	if err != nil {
		return err
	}
	cfg.Database.URL = server.URL()
	ours := make(chan struct{})
	go func() {
		<-server.Done()
		select {
		case <-ours:
		default:
			fail(errPostgresDied)
		}
	}()
	cfg.stopPostgres = func() error {
		close(ours)
		return server.Stop(context.WithoutCancel(ctx))
	}
	return nil
}

// openDatabase opens the configured database, or the local one, for a command.
func openDatabase(ctx context.Context, cfg *config, log *slog.Logger) (d *db.DB, release func(), err error) {
	ctx, fail := context.WithCancelCause(ctx)
	if d := openRunning(ctx, cfg); d != nil {
		return d, func() { _ = d.Close(); fail(nil) }, nil
	}
	if err := startPostgres(ctx, cfg, log, fail); err != nil {
		fail(nil)
		return nil, nil, err
	}
	stop := func() {
		if err := cfg.stopPostgres(); err != nil {
			log.Error("stopping the local PostgreSQL failed", "error", err)
		}
		fail(nil)
	}
	if d, err = db.Open(ctx, cfg.Database); err != nil {
		stop()
		return nil, nil, fmt.Errorf("database.url: %w", err)
	}
	return d, func() { _ = d.Close(); stop() }, nil
}

// openRunning opens the local PostgreSQL of a server that runs on the same state directory; nil where there is none.
func openRunning(ctx context.Context, cfg *config) *db.DB {
	if cfg.Database.URL != "" {
		return nil
	}
	running := cfg.Database
	running.URL = embedded.RunningURL(cfg.StateDir)
	d, err := db.Open(ctx, running)
	if err != nil {
		return nil
	}
	return d
}

// openMigrated opens the database and brings its tables up to date.
func openMigrated(ctx context.Context, cfg *config, log *slog.Logger) (*db.DB, error) {
	d, err := db.Open(ctx, cfg.Database)
	if err != nil {
		return nil, fmt.Errorf("database.url (DATABASE_URL): PostgreSQL cannot be used: %s", lastLine(err))
	}
	others := 0
	err = db.Migrate(ctx, d, log, migrations()...)
	if err == nil {
		others, err = cache.Live(ctx, d)
	}
	if err == nil {
		err = d.WarnIfOversubscribed(ctx, log, others+1)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// generatedKey is the key with all scopes that a server without any key is given.
type generatedKey struct {
	key  string // empty where the key is not ours to show
	path string // empty where none was generated
}

// keyName is the file in the state directory that keeps the generated key.
const keyName = "root.key"

// hasKeys reports whether API keys are configured.
func hasKeys(cfg *config) bool { return cfg.Server.RootKey != "" || len(cfg.Server.Keys) > 0 }

// firstKey generates the first API key where none is configured, once, and finds it again at later starts.
func firstKey(cfg *config) (generatedKey, error) {
	if hasKeys(cfg) {
		return generatedKey{}, nil
	}
	path := filepath.Join(cfg.StateDir, keyName)
	stored, err := os.ReadFile(path)
	if err == nil {
		cfg.Server.RootKey = strings.TrimSpace(string(stored))
		if len(cfg.Server.RootKey) < web.MinRootKey { // nobody could call such a server
			return generatedKey{}, fmt.Errorf("state_dir: %s holds no key; remove it, and another is generated", path)
		}
		return generatedKey{path: path}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return generatedKey{}, fmt.Errorf("state_dir: the key cannot be read: %w", err)
	}
	bits := make([]byte, 32)
	_, _ = rand.Read(bits) // never fails (crypto/rand)
	key := "sk_" + base64.RawURLEncoding.EncodeToString(bits)
	switch err := keepKey(path, key); {
	case errors.Is(err, fs.ErrExist):
		return firstKey(cfg) // another instance was faster
	case err != nil:
		return generatedKey{}, fmt.Errorf("state_dir: the key cannot be kept: %w", err)
	}
	cfg.Server.RootKey = key
	return generatedKey{key: key, path: path}, nil
}

// keepKey writes a key where none is, all at once: others find all of it or nothing.
func keepKey(path, key string) error {
	draft, err := os.CreateTemp(filepath.Dir(path), keyName+".*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name())
	_, err = draft.WriteString(key + "\n")
	if err = errors.Join(err, draft.Sync(), draft.Close()); err != nil {
		return err
	}
	return os.Link(draft.Name(), path) // unlike rename, never replaces
}

// makeStateDir makes the directory for the keys that are generated. In production it must be there (see config.complete).
func makeStateDir(cfg *config) error {
	if cfg.production() || cfg.Modules.Keys.SigningKey != "" && hasKeys(cfg) {
		return nil
	}
	if err := os.MkdirAll(cfg.StateDir, 0o755); err != nil { // PostgreSQL's own user must be able to pass
		return fmt.Errorf("state_dir: %w", err)
	}
	return nil
}

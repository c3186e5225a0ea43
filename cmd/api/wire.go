package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/strata-accounts/strata/modules/auditlog"
	"github.com/strata-accounts/strata/modules/preferences"
	"github.com/strata-accounts/strata/modules/sessions"
	"github.com/strata-accounts/strata/modules/users"
	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/rollout"
	"github.com/strata-accounts/strata/platform/web"
)

// This file is the only one that names two modules: what one needs of another passes through an adapter here.

// migrations lists all tables, in the order in which they are made: the modules' triggers call the cache's function.
func migrations() []db.Migration {
	return []db.Migration{
		cache.Migrations(), web.Migrations(), rollout.Migrations(),
		auditlog.Migrations(), users.Migrations(), sessions.Migrations(), preferences.Migrations(),
	}
}

// moduleConfig is what an operator decides about the modules.
type moduleConfig struct {
	Users    users.Config
	Sessions sessions.Config
	Auditlog auditlog.Config
	Keys     auditlog.KeyConfig

	HashNiceness int // of the process that hashes passwords
}

// moduleSettings binds the modules' keys.
func (c *config) moduleSettings() []setting {
	m := &c.Modules
	return []setting{
		{"users.stage", c.stage("users"), nil},
		{"users.percent", c.percent("users"), nil},
		{"users.public_sign_up", boolean(&m.Users.PublicSignUp), nil},
		{"users.hash_concurrency", integer(&m.Users.HashConcurrency, 0, 1024), nil},
		{"users.hash_niceness", integer(&m.HashNiceness, 0, 19), nil},
		{"users.hash_wait", duration(&m.Users.HashWait, time.Millisecond, time.Minute), nil},
		{"users.token_lifetime", duration(&m.Users.TokenLifetime, time.Second, 30*day), nil},
		{"users.cleanup_interval", duration(&m.Users.CleanupInterval, time.Second, day), nil},
		{"users.import_batch", integer(&m.Users.ImportBatch, 1, 5000), nil},

		{"sessions.stage", c.stage("sessions"), nil},
		{"sessions.percent", c.percent("sessions"), nil},
		{"sessions.idle_timeout", duration(&m.Sessions.IdleTimeout, time.Second, 3650*day), nil},
		{"sessions.lifetime", duration(&m.Sessions.Lifetime, time.Second, 3650*day), nil},
		{"sessions.seen_interval", duration(&m.Sessions.SeenInterval, time.Second, day), nil},
		{"sessions.flush_interval", duration(&m.Sessions.FlushInterval, 10*time.Millisecond, time.Hour), nil},
		{"sessions.cleanup_interval", duration(&m.Sessions.CleanupInterval, time.Second, day), nil},
		{"sessions.cleanup_batch", integer(&m.Sessions.CleanupBatch, 1, 100_000), nil},
		{"sessions.max_per_user", integer(&m.Sessions.MaxPerUser, 1, 100_000), nil},
		{"sessions.account_limit", limitOf(&m.Sessions.AccountLimit), nil},

		{"auditlog.stage", c.stage("auditlog"), nil},
		{"auditlog.percent", c.percent("auditlog"), nil},
		{"auditlog.seal_interval", duration(&m.Auditlog.SealInterval, 10*time.Millisecond, time.Hour), nil},
		{"auditlog.seal_batch", integer(&m.Auditlog.SealBatch, 1, 100_000), nil},
		{"auditlog.seal_lag_warning", duration(&m.Auditlog.SealLagWarning, time.Second, day), nil},
		{"auditlog.retention", duration(&m.Auditlog.Retention, 0, 36500*day), nil},
		{"auditlog.checkpoint_file", text(&m.Auditlog.CheckpointFile), nil},
		{"auditlog.origin", text(&m.Keys.Origin), nil},
		{"auditlog.signing_key", text(&m.Keys.SigningKey), redactAll},
		{"auditlog.verifiers", list(&m.Keys.Verifiers), nil},

		{"preferences.stage", c.stage("preferences"), nil},
		{"preferences.percent", c.percent("preferences"), nil},
	}
}

// modules are the four, ready to serve.
type modules struct {
	users       *users.Module
	sessions    *sessions.Module
	auditlog    *auditlog.Module
	preferences *preferences.Module
	ladders     *rollout.Registry
}

// platform is what the modules stand on.
type platform struct {
	db      *db.DB
	cache   *cache.Cache
	keys    *auditlog.Keys
	log     *slog.Logger
	metrics prometheus.Registerer
}

func newModules(cfg *config, p platform) (*modules, error) {
	m := &modules{}
	audit := auditor{m}
	var err error
	if m.ladders, err = rollout.New(cfg.Rollout, rollout.Deps{
		DB: p.db, Auditor: audit, Log: p.log, Metrics: p.metrics, Flags: cfg.flags(),
	}); err != nil {
		return nil, err
	}
	rungs, err := newRungs(cfg, p, m.ladders)
	if err != nil {
		return nil, err
	}
	m.auditlog = auditlog.New(auditlog.Deps{
		DB: p.db, Repository: rungs.auditlog, Keys: p.keys, Log: p.log, Metrics: p.metrics, Config: cfg.Modules.Auditlog,
	})
	m.users = users.New(users.Deps{
		DB: p.db, Repository: rungs.users, Auditor: audit, Sessions: sessionEnder{m}, Erasers: []users.Eraser{eraser{m}},
		Log: p.log, Config: cfg.Modules.Users, Hashing: cfg.hashing,
	})
	m.sessions = sessions.New(sessions.Deps{
		DB: p.db, Repository: rungs.sessions, Auditor: audit, Users: accounts{p.db, m.users.Service}, Log: p.log,
		Config: cfg.Modules.Sessions,
	})
	m.preferences = preferences.New(preferences.Deps{
		DB: p.db, Repository: rungs.preferences, Auditor: audit, Users: holders{m.users.Service},
	})
	return m, nil
}

// rungs are the modules' repositories, each a switch over all of its rungs.
type rungs struct {
	users       users.Repository
	sessions    sessions.Repository
	auditlog    auditlog.Repository
	preferences preferences.Repository
}

func newRungs(cfg *config, p platform, registry *rollout.Registry) (rungs, error) {
	var r rungs
	ul, err := ladder[users.Repository](cfg, p, registry, "users",
		rollout.Spec{Methods: rollout.MethodsOf[users.Reader](), MismatchBudget: 1, Kinds: users.CacheKinds},
		users.NewDirectRepository(p.db), users.NewPostgresRepository(p.db),
		users.NewCacheRepository(users.NewPostgresRepository(p.db), p.cache))
	if err != nil {
		return r, err
	}
	sl, err := ladder[sessions.Repository](cfg, p, registry, "sessions",
		rollout.Spec{Methods: rollout.MethodsOf[sessions.Reader](), Kinds: sessions.CacheKinds},
		sessions.NewDirectRepository(p.db), sessions.NewPostgresRepository(p.db),
		sessions.NewCacheRepository(sessions.NewPostgresRepository(p.db), p.cache, users.CacheKey))
	if err != nil {
		return r, err
	}
	al, err := ladder[auditlog.Repository](cfg, p, registry, "auditlog",
		rollout.Spec{Methods: []string{"ByID", "List"}, MismatchBudget: 1, Kinds: auditlog.CacheKinds}, // HasOrigins is the cache's
		auditlog.NewDirectRepository(p.db), auditlog.NewPostgresRepository(p.db),
		auditlog.NewCacheRepository(auditlog.NewPostgresRepository(p.db), p.cache))
	if err != nil {
		return r, err
	}
	pl, err := ladder[preferences.Repository](cfg, p, registry, "preferences",
		rollout.Spec{Methods: rollout.MethodsOf[preferences.Reader](), MismatchBudget: 1, Kinds: preferences.CacheKinds},
		preferences.NewDirectRepository(p.db), preferences.NewPostgresRepository(p.db),
		preferences.NewCacheRepository(preferences.NewPostgresRepository(p.db), p.cache))
	if err != nil {
		return r, err
	}
	return rungs{
		users.NewSwitchRepository(ul), sessions.NewSwitchRepository(sl),
		auditlog.NewSwitchRepository(al), preferences.NewSwitchRepository(pl),
	}, nil
}

// ladder puts a module on the ladder, where the configuration says that it starts.
func ladder[R any](
	cfg *config, p platform, registry *rollout.Registry, name string, spec rollout.Spec, direct, repository, cached R,
) (*rollout.Ladder[R], error) {
	spec.Initial = rollout.NewSetting(cfg.Stages[name], cfg.Percents[name])
	module, err := registry.Add(name, spec)
	if err != nil {
		return nil, err
	}
	return &rollout.Ladder[R]{
		DB: p.db, Module: module, Direct: direct, Repository: repository, Cached: cached, Cache: p.cache,
	}, nil
}

func (m *modules) routes(api *web.API) {
	m.users.Routes(api)
	m.sessions.Routes(api)
	m.auditlog.Routes(api)
	m.preferences.Routes(api)
	m.ladders.Routes(api)
}

// auditor records for the other modules, and adds who did it and from where.
type auditor struct{ m *modules }

var (
	_ users.Auditor       = auditor{}
	_ sessions.Auditor    = auditor{}
	_ preferences.Auditor = auditor{}
	_ rollout.Auditor     = auditor{}
)

func (a auditor) Record(ctx context.Context, action, targetType string, targetIDs []string, metadata map[string]any) error {
	actor := auditlog.Ref{Type: auditlog.System, ID: "strata"}
	request := web.RequestFrom(ctx)
	if request.ID != "" {
		caller := web.CallerFrom(ctx)
		actor = auditlog.Ref{Type: caller.Kind.String(), ID: caller.ID}
	}
	if metadata == nil {
		metadata = map[string]any{}
	}
	data, err := json.Marshal(metadata)
	if err != nil {
		return err
	}
	events := make([]auditlog.Event, len(targetIDs))
	for i, id := range targetIDs {
		events[i] = auditlog.Event{
			Action: action, Actor: actor, Target: auditlog.Ref{Type: targetType, ID: id},
			IP: request.IP, UserAgent: request.UserAgent, RequestID: request.ID, Metadata: data,
		}
	}
	_, err = a.m.auditlog.Service.Record(ctx, events...)
	return err
}

// sessionEnder ends sessions for users. It reaches them through m, since users are there before sessions.
type sessionEnder struct{ m *modules }

var _ users.SessionEnder = sessionEnder{}

func (s sessionEnder) EndAll(ctx context.Context, userID, except uuid.UUID) error {
	return s.m.sessions.Service.EndAll(ctx, userID, except)
}

// eraser removes what the other modules keep about a user.
type eraser struct{ m *modules }

var _ users.Eraser = eraser{}

func (e eraser) Erase(ctx context.Context, userID uuid.UUID) error {
	return errors.Join(
		e.m.sessions.Service.Erase(ctx, userID),
		e.m.preferences.Service.Erase(ctx, userID),
		e.m.auditlog.Service.Erase(ctx, ids.Format(users.IDPrefix, userID)),
	)
}

// accounts are the users as sessions need them.
type accounts struct {
	db    *db.DB
	users *users.Service
}

var _ sessions.Users = accounts{}

func (a accounts) SignIn(ctx context.Context, email, password string, open func(ctx context.Context, userID uuid.UUID) error) (web.JSONAppender, error) {
	verified, err := a.users.Authenticate(ctx, email, password)
	if err != nil {
		return nil, err
	}
	var u users.User
	err = a.db.InTx(ctx, func(ctx context.Context) error {
		if u, err = a.users.SignedIn(ctx, verified); err != nil {
			return err
		}
		return open(ctx, u.ID)
	})
	if err != nil {
		return nil, err
	}
	return users.View{User: u}, nil
}

func (a accounts) Active(ctx context.Context, userID uuid.UUID) (web.JSONAppender, bool, error) {
	u, err := a.users.ByID(ctx, userID)
	if errors.Is(err, users.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil || u.Status != users.Active {
		return nil, false, err
	}
	return users.View{User: u}, true, nil
}

// holders are the users as preferences need them.
type holders struct{ users *users.Service }

var _ preferences.Users = holders{}

func (h holders) Exists(ctx context.Context, userID uuid.UUID) error {
	_, err := h.users.ByID(ctx, userID)
	return err
}

func (h holders) Hold(ctx context.Context, userID uuid.UUID) error {
	return h.users.Hold(ctx, userID)
}

// newLimiter counts in Redis where there is one, so that instances share their counts, and in memory while it fails.
func newLimiter(client redis.UniversalClient, prefix string, log *slog.Logger) web.Limiter {
	local := web.NewMemoryLimiter(100_000)
	if client == nil {
		return local
	}
	return web.NewFailoverLimiter(web.NewRedisLimiter(client, prefix), local, log)
}

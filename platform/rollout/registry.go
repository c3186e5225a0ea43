package rollout

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/strata-accounts/strata/platform/db"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the tables of the stages.
func Migrations() db.Migration { return db.Embedded("rollout", migrations) }

// Auditor records who did what, in the transaction that the context carries. Metadata holds names, never values.
type Auditor interface {
	Record(ctx context.Context, action, targetType string, targetIDs []string, metadata map[string]any) error
}

// Config is what an operator decides about the ladder.
type Config struct {
	PollInterval time.Duration // between looks at the table; a change is in force everywhere after twice as long

	Sample      float64 // percent of the answers that are compared with direct SQL in the stage repository
	Queue       int     // comparisons that may wait; what comes then is dropped
	Workers     int     // comparisons at a time, each on a connection of its own
	MinCompared int     // comparisons without a mismatch before it is safe to advance
	MinChecked  int     // cache hits without a stale one before it is safe to advance
	CompareRole string  // that comparisons read under; empty: one that can only read, where the connection may make it
}

// Defaults returns the configuration that a deployment without any runs with.
func Defaults() Config {
	return Config{PollInterval: time.Second, Sample: 10, Queue: 1024, Workers: 2, MinCompared: 30_000, MinChecked: 100}
}

func (c Config) validate() error {
	switch {
	case c.PollInterval <= 0 || c.PollInterval > time.Second:
		return errors.New("rollout: poll_interval must lie in (0, 1 s], so that every instance follows within 2 s")
	case c.Sample < 0 || c.Sample > 100:
		return errors.New("rollout: sample must lie in [0, 100]")
	case c.Queue < 1 || c.Workers < 1 || c.MinCompared < 1 || c.MinChecked < 1:
		return errors.New("rollout: queue, workers, min_compared and min_checked must be at least 1")
	}
	return nil
}

// Deps are the registry's neighbours.
type Deps struct {
	DB      *db.DB
	Auditor Auditor
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Flags   *FlagSource // moves the modules in place of Change; nil: none does
}

// Registry knows the modules of this process and keeps their stages as the table has them. There is one per process.
// It is safe for concurrent use once the modules have been added.
type Registry struct {
	cfg     Config
	db      *db.DB
	audit   Auditor
	log     *slog.Logger
	id      string // of this process start
	modules []*Module
	compare *comparer
	flags   *FlagSource

	mu           sync.Mutex  // one poll at a time
	readerSought bool        // whether comparisons have a role of their own is settled
	lost         atomic.Bool // the table could not be read the last time
}

// New returns a registry without modules. Errors: a configuration that cannot be; metrics
// registered twice.
func New(cfg Config, deps Deps) (*Registry, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	r := &Registry{
		cfg: cfg, db: deps.DB, audit: deps.Auditor, log: deps.Log, id: rand.Text()[:12], flags: deps.Flags,
		compare: newComparer(deps.DB, cfg.Queue, cfg.Workers),
	}
	if err := deps.Metrics.Register(collector{r}); err != nil {
		return nil, fmt.Errorf("rollout: metrics: %w", err)
	}
	return r, nil
}

// Add puts a module on the ladder. All are added before Load. Errors: a name twice, an initial setting that is none.
func (r *Registry) Add(name string, spec Spec) (*Module, error) {
	if r.module(name) != nil {
		return nil, fmt.Errorf("rollout: module %s is added twice", name)
	}
	m, err := newModule(name, spec)
	if err != nil {
		return nil, err
	}
	m.compare, m.sample = r.compare, NewSetting(Repository, r.cfg.Sample).Reach
	r.modules = append(r.modules, m)
	slices.SortFunc(r.modules, func(a, b *Module) int { return strings.Compare(a.name, b.name) })
	return m, nil
}

func (r *Registry) module(name string) *Module {
	for _, m := range r.modules {
		if m.name == name {
			return m
		}
	}
	return nil
}

// CacheChecked counts what a comparison of a cache hit with PostgreSQL has shown, for the module whose kind of entity it
// was. One that began before the module left the cache says nothing about where it is now.
func (r *Registry) CacheChecked(kind, id string, stale bool) {
	for _, m := range r.modules {
		s := m.current.Load()
		if s.Stage != Cached || !slices.Contains(m.spec.Kinds, kind) {
			continue
		}
		m.counters.check(stale)
		if stale {
			m.report(&trial{method: "cached " + kind, key: id, version: s.version, answerer: cached, other: repository},
				[]Difference{{Kind: "changed"}})
		}
	}
}

// Load takes over the stages that the table has, and gives it those that it has not. Call it before the first request.
// Errors: those of the database; a configured role that the connection may not assume.
func (r *Registry) Load(ctx context.Context) error {
	if err := r.useConfiguredRole(ctx); err != nil {
		return err
	}
	for _, m := range r.modules {
		if err := r.enter(ctx, m); err != nil {
			return fmt.Errorf("rollout: module %s: %w", m.name, err)
		}
	}
	if err := r.poll(ctx); err != nil {
		return err
	}
	for _, m := range r.modules {
		if now := m.Setting(); now != m.spec.Initial {
			r.log.InfoContext(ctx, "rollout: the table has another stage than the configuration, and wins", "module", m.name,
				"configured", m.spec.Initial, "stage", now)
		}
	}
	return nil
}

// Run follows the table until ctx ends. An instance that has lost it stays where it is, and says so.
func (r *Registry) Run(ctx context.Context) error {
	defer r.leave(context.WithoutCancel(ctx))
	var comparing sync.WaitGroup
	defer comparing.Wait()
	comparing.Go(func() { r.compare.run(ctx) })
	tick := time.NewTicker(r.cfg.PollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.follow(ctx)
		}
	}
}

// follow polls once, and logs when the table is lost or found again.
func (r *Registry) follow(ctx context.Context) {
	err := r.poll(ctx)
	if ctx.Err() != nil {
		return
	}
	switch before := r.lost.Swap(err != nil); {
	case err != nil && !before:
		r.log.ErrorContext(ctx, "rollout: the table of stages is lost: every module stays where it is", "error", err)
	case err == nil && before:
		r.log.InfoContext(ctx, "rollout: the table of stages is back")
	}
}

// poll takes over what has changed and acknowledges it, publishes what has been counted, and has the guard and the
// flags look at it. What was watched before the table was lost is forgotten: an outage is no fault of a path.
func (r *Registry) poll(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() {
		if err != nil {
			for _, m := range r.modules {
				m.watch = watch{}
			}
		}
	}()
	for moved := true; moved; {
		rows, err := r.stages(ctx)
		if err != nil {
			return err
		}
		if err := r.take(ctx, rows); err != nil {
			return err
		}
		if err := r.beat(ctx); err != nil {
			return err
		}
		if moved, err = r.guard(ctx, rows); err == nil && !moved {
			moved, err = r.heed(ctx, rows)
		}
		if err != nil {
			return err
		}
	}
	return r.publish(ctx)
}

// take puts into force what the table has.
func (r *Registry) take(ctx context.Context, rows []stageRow) error {
	for _, m := range r.modules {
		i := slices.IndexFunc(rows, func(row stageRow) bool { return row.module == m.name })
		if i < 0 {
			return fmt.Errorf("rollout: module %s is not in the table", m.name)
		}
		before, now := m.current.Load(), rows[i]
		if before.version == now.version {
			continue
		}
		if now.Stage == Shadow || now.Stage == Repository {
			if err := r.useReader(ctx); err != nil {
				return err
			}
		}
		m.set(now.Setting, now.version)
		if before.version != 0 {
			r.log.InfoContext(ctx, "rollout: a module has moved", "module", m.name, "from", before.Setting, "to", now.Setting)
		}
	}
	return nil
}

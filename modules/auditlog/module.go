package auditlog

import (
	"context"
	"embed"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/strata-accounts/strata/platform/db"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the module's tables. Only this module writes them.
func Migrations() db.Migration { return db.Embedded("auditlog", migrations) }

// Config is what an operator decides about the audit log.
type Config struct {
	SealInterval   time.Duration // between two looks for events to seal
	SealBatch      int           // events in a seal, at most
	SealLagWarning time.Duration // how long events may wait to be sealed before that is logged as a warning
	Retention      time.Duration // months whose events are all older are dropped; 0: never
	CheckpointFile string        // where a checkpoint is appended each minute in which there is a new one; empty: nowhere
}

// Deps is what the module needs from outside.
type Deps struct {
	DB         *db.DB
	Repository Repository
	Keys       *Keys
	Log        *slog.Logger
	Metrics    prometheus.Registerer // may be nil
	Config     Config
}

// Module is the audit log: what other modules' adapters record to, the sealed log, and its routes.
type Module struct {
	Service *Service
	Log     *Log
	jobs    *jobs
}

// New returns the module.
func New(deps Deps) *Module {
	m := &Module{
		Service: &Service{repo: deps.Repository},
		Log:     NewLog(deps.DB, deps.Keys, deps.Config.SealBatch),
	}
	m.jobs = &jobs{
		log: m.Log, service: m.Service, cfg: deps.Config, logger: deps.Log, metrics: newMetrics(deps.Metrics),
		complained: map[string]time.Time{},
	}
	return m
}

// Run seals events, creates partitions ahead and, where configured, ships checkpoints and drops what has expired, until
// ctx ends. Several instances may run it at once.
func (m *Module) Run(ctx context.Context) error {
	m.jobs.run(ctx)
	return nil
}

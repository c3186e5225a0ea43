package auditlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/strata-accounts/strata/platform/db"
)

const (
	partitionInterval  = time.Hour
	watchInterval      = 5 * time.Second
	checkpointInterval = time.Minute
	// complaintInterval is how often the same trouble is logged.
	complaintInterval = time.Minute
)

// metrics of the sealed log.
type metrics struct {
	lag    prometheus.Gauge
	sealed prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		lag: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "strata_audit_seal_lag_seconds",
			Help: "How long the oldest audit event that is not sealed has been waiting.",
		}),
		sealed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "strata_audit_sealed_events_total",
			Help: "Audit events that this instance has sealed.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.lag, m.sealed)
	}
	return m
}

// jobs is the module's background work.
type jobs struct {
	log     *Log
	service *Service
	cfg     Config
	logger  *slog.Logger
	metrics metrics
	shipped int64 // the size of the last checkpoint that went to the file

	mu         sync.Mutex
	complained map[string]time.Time // when each kind of trouble was last logged
}

// run works until ctx ends.
func (j *jobs) run(ctx context.Context) {
	var all sync.WaitGroup
	every := func(interval time.Duration, name string, job func(context.Context) error) {
		all.Go(func() {
			ticker := time.NewTicker(interval)
			defer ticker.Stop()
			for {
				if err := job(ctx); err != nil && ctx.Err() == nil {
					j.complain(ctx, slog.LevelError, name+" failed", "error", err)
				}
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
				}
			}
		})
	}
	every(partitionInterval, "adding audit partitions", j.addPartitions)
	every(j.cfg.SealInterval, "sealing the audit log", j.seal)
	every(watchInterval, "watching the audit log", j.watch)
	if j.cfg.CheckpointFile != "" {
		every(checkpointInterval, "writing audit checkpoints to the file", j.ship)
	}
	if j.cfg.Retention > 0 {
		every(partitionInterval, "audit retention", j.retain)
	}
	all.Wait()
}

// seal seals until it has caught up.
func (j *jobs) seal(ctx context.Context) error {
	for {
		n, err := j.log.Seal(ctx)
		j.metrics.sealed.Add(float64(n))
		if err != nil || n < j.cfg.SealBatch {
			return err
		}
	}
}

func (j *jobs) addPartitions(ctx context.Context) error {
	n, err := j.log.AddPartitions(ctx)
	if n > 0 {
		j.logger.InfoContext(ctx, "added audit partitions", "count", n)
	}
	return err
}

// retain drops months until none has expired.
func (j *jobs) retain(ctx context.Context) error {
	for {
		dropped, err := j.log.DropExpired(ctx, j.cfg.Retention, func(ctx context.Context, e Event) error {
			_, err := j.service.Record(ctx, e)
			return err
		})
		if err != nil || !dropped {
			return err
		}
		j.logger.InfoContext(ctx, "retention dropped a month of audit events")
	}
}

// ship appends the newest checkpoint to the file, from where it can be carried off the machine.
func (j *jobs) ship(ctx context.Context) error {
	c, err := j.log.Checkpoint(ctx)
	if errors.Is(err, ErrNoCheckpoint) || c.Size == j.shipped && err == nil {
		return nil
	}
	if err != nil {
		return err
	}
	f, err := os.OpenFile(j.cfg.CheckpointFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // public, and for others to carry off
	if err != nil {
		return err
	}
	_, err = f.WriteString(c.Note + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("append checkpoint: %w", err)
	}
	j.shipped = c.Size
	return nil
}

// watch measures how far sealing lags behind, and says who holds it up.
func (j *jobs) watch(ctx context.Context) error {
	reset, err := j.log.counterReset(ctx)
	if err != nil {
		return err
	}
	if reset {
		j.complain(ctx, slog.LevelError, "PostgreSQL's transaction counter is behind the audit log, as after a restore into a new cluster; "+
			"new events cannot be sealed until it is raised: see docs/audit.md, Backup and restore")
	}
	waited, err := j.log.pending(ctx)
	if err != nil {
		return err
	}
	if waited == nil {
		j.metrics.lag.Set(0)
		return nil
	}
	j.metrics.lag.Set(waited.Seconds())
	if *waited < j.cfg.SealLagWarning {
		return nil
	}
	b, err := j.log.blocker(ctx)
	if err != nil {
		return err
	}
	j.complain(ctx, slog.LevelWarn, "audit events wait to be sealed; the oldest writing transaction on the PostgreSQL server holds them up",
		"waited", *waited, "pid", b.pid, "database", b.database, "application", b.application, "transaction_age", b.age)
	return nil
}

// complain logs, but not the same message time and again.
func (j *jobs) complain(ctx context.Context, level slog.Level, message string, args ...any) {
	j.mu.Lock()
	recently := time.Since(j.complained[message]) < complaintInterval
	if !recently {
		j.complained[message] = time.Now()
	}
	j.mu.Unlock()
	if !recently {
		j.logger.Log(ctx, level, message, args...)
	}
}

// counterReset reports whether events have been sealed that are newer, by transaction id, than any to come.
func (l *Log) counterReset(ctx context.Context) (bool, error) {
	var reset bool
	err := l.db.Querier(ctx).QueryRowContext(ctx, `SELECT coalesce((SELECT last_txid FROM audit_seals ORDER BY batch DESC LIMIT 1)
		>= pg_snapshot_xmax(pg_current_snapshot()), false)`).Scan(&reset)
	return reset, db.Translate(err, nil)
}

// blocker is the transaction with the lowest id on the server, in whatever database.
type blocker struct {
	pid                   int64 // 0 for a prepared transaction
	database, application string
	age                   time.Duration
}

// blocker returns it, or zero where no transaction writes: then it is the sealer itself that does not keep up.
func (l *Log) blocker(ctx context.Context) (blocker, error) {
	var b blocker
	var seconds float64
	err := l.db.Querier(ctx).QueryRowContext(ctx, `
		SELECT pid, database, application, extract(epoch FROM clock_timestamp() - since) FROM (
			SELECT pid, coalesce(datname, '') AS database, application_name AS application, xact_start AS since, age(backend_xid) AS xids
			FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND xact_start IS NOT NULL
			UNION ALL
			SELECT 0, database, 'prepared transaction ' || gid, prepared, age(transaction) FROM pg_prepared_xacts
		) AS writers ORDER BY xids DESC LIMIT 1`).Scan(&b.pid, &b.database, &b.application, &seconds)
	if db.IsNoRows(err) {
		return b, nil
	}
	b.age = time.Duration(seconds * float64(time.Second))
	return b, db.Translate(err, nil)
}

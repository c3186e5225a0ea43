// Package db is the way to PostgreSQL: one bounded *sql.DB under GORM and hand-written SQL, transactions that both share
// through the context, errors in the vocabulary of platform/errs, and embedded migrations.
package db

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/stdlib"
	"go.opentelemetry.io/otel/trace"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// Config says where PostgreSQL is and how much of it this process may use.
type Config struct {
	URL string // postgres://… or a libpq keyword string; never logged

	MaxOpen     int           // connections at most
	MaxIdle     int           // connections kept when idle; after a burst, for seconds, as many as it used
	MaxLifetime time.Duration // a connection is replaced after this, so that load balancers and failovers are followed
	MaxIdleTime time.Duration // an idle connection is closed after this

	AcquireTimeout time.Duration // how long a call may wait for a connection before errs.ErrBusy
	TxTimeout      time.Duration // a transaction's deadline, unless Timeout says otherwise

	Traces trace.TracerProvider // of the statements, without their arguments; nil: they are not traced
}

// DB is the pool. It is safe for concurrent use.
type DB struct {
	sql  *sql.DB
	pool *bounded
	gorm *gorm.DB
	cfg  Config
	stop context.CancelFunc // of what runs beside the pool
}

// Querier runs SQL on the context's transaction or, outside of one, on the pool with a bounded wait for a connection.
type Querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Open connects to PostgreSQL and verifies that it answers. Errors: a malformed URL (without its text, which may hold a
// password), or errs.ErrUnavailable.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	pgxCfg, err := pgx.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("database url: not a valid PostgreSQL URL or keyword string")
	}
	pgxCfg.Tracer = cfg.tracer()
	if pgxCfg.RuntimeParams["application_name"] == "" {
		pgxCfg.RuntimeParams["application_name"] = "strata"
	}
	if pgxCfg.ConnectTimeout == 0 {
		pgxCfg.ConnectTimeout = 5 * time.Second
	}
	if pgxCfg.DefaultQueryExecMode != pgx.QueryExecModeCacheDescribe {
		pgxCfg.DescriptionCacheCapacity = 0 // 25 KB for each connection that nothing would use
	}
	pool := stdlib.OpenDB(*pgxCfg, stdlib.OptionAfterConnect(encodeUUIDs))
	pool.SetMaxOpenConns(cfg.MaxOpen)
	pool.SetConnMaxLifetime(cfg.MaxLifetime)
	pool.SetConnMaxIdleTime(cfg.MaxIdleTime)

	limited := newBounded(pool, cfg)
	orm, err := gorm.Open(postgres.New(postgres.Config{Conn: limited}), &gorm.Config{
		SkipDefaultTransaction: true, // InTx is the only place that opens one
		DisableAutomaticPing:   true,
		Logger:                 logger.Discard, // errors are returned and logged once, without the SQL's values
	})
	if err != nil {
		_ = pool.Close()
		return nil, fmt.Errorf("open gorm: %w", err)
	}
	d := &DB{sql: pool, pool: limited, gorm: orm, cfg: cfg}
	if err := d.Health(ctx); err != nil {
		_ = pool.Close()
		return nil, err
	}
	running, stop := context.WithCancel(context.Background())
	go limited.idle.run(running)
	d.stop = stop
	return d, nil
}

// tracer sees every statement of both rungs.
func (c Config) tracer() pgx.QueryTracer {
	if c.Traces == nil {
		return released{}
	}
	return multitracer.New(released{}, otelpgx.NewTracer(otelpgx.WithTracerProvider(c.Traces), otelpgx.WithTrimSQLInSpanName(),
		otelpgx.WithDisableConnectionDetailsInAttributes()))
}

// Close closes the pool; calls in progress fail.
func (d *DB) Close() error {
	d.stop()
	return d.sql.Close()
}

// SQL returns the pool itself, for migrations and statistics. Its connections are not counted; modules use Querier.
func (d *DB) SQL() *sql.DB { return d.sql }

// Health runs a query on a pooled connection. Errors: errs.ErrUnavailable, errs.ErrBusy, errs.ErrTimeout.
func (d *DB) Health(ctx context.Context) error {
	var one int
	return Translate(d.Querier(ctx).QueryRowContext(ctx, "SELECT 1").Scan(&one), nil)
}

// Querier returns the context's transaction, or the pool.
func (d *DB) Querier(ctx context.Context) Querier {
	if t := txFrom(ctx); t != nil {
		return t.sql
	}
	return d.pool
}

// Gorm returns a GORM session on the context's transaction, or on the pool.
func (d *DB) Gorm(ctx context.Context) *gorm.DB {
	session := d.gorm.Session(&gorm.Session{NewDB: true, Context: ctx})
	if t := txFrom(ctx); t != nil {
		session.Statement.ConnPool = t.sql
	}
	return session
}

// WarnIfOversubscribed logs a warning when live instances with pools of this size could ask PostgreSQL for more
// connections than it grants: the surplus would fail to connect under load.
func (d *DB) WarnIfOversubscribed(ctx context.Context, log *slog.Logger, instances int) error {
	var setting, reserved string
	row := d.Querier(ctx).QueryRowContext(ctx,
		`SELECT current_setting('max_connections'), current_setting('superuser_reserved_connections')`)
	if err := row.Scan(&setting, &reserved); err != nil {
		return Translate(err, nil)
	}
	granted, _ := strconv.Atoi(setting)
	kept, _ := strconv.Atoi(reserved)
	if wanted := instances * d.cfg.MaxOpen; wanted > granted-kept {
		log.WarnContext(ctx, "the instances' pools together exceed what PostgreSQL grants; lower database.max_open",
			"instances", instances, "max_open", d.cfg.MaxOpen, "wanted", wanted, "granted", granted-kept)
	}
	return nil
}

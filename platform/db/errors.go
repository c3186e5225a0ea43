package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"

	"github.com/strata-accounts/strata/platform/errs"
)

// ErrConcurrent reports a transaction that PostgreSQL gave up because of another one (SQLSTATE 40001, 40P01, 55P03).
var ErrConcurrent = errs.New(errs.Unavailable, "concurrent_update", "Another request changed the same thing at the same time. Try again.").
	After(time.Second)

// errUnstorable reports a value that passed every rule of ours and that PostgreSQL cannot store all the same.
var errUnstorable = errs.New(errs.Invalid, "validation_failed", "The request holds a value that cannot be stored.")

// IsNoRows reports whether err says that a query for one row found none.
func IsNoRows(err error) bool {
	return errors.Is(err, sql.ErrNoRows) || errors.Is(err, gorm.ErrRecordNotFound)
}

// Translate maps an error of PostgreSQL, of the driver or of the context to one of platform/errs. A violated constraint
// becomes the error that constraints names for it. What it does not know it returns unchanged, sql.ErrNoRows too.
func Translate(err error, constraints map[string]*errs.Error) error {
	if err == nil {
		return nil
	}
	var known *errs.Error
	if errors.As(err, &known) {
		return err
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return translateSQLState(err, pg, constraints)
	}
	switch {
	case IsNoRows(err):
		return err
	case errors.Is(err, context.Canceled):
		return errs.ErrCanceled.Wrap(err)
	case errors.Is(err, context.DeadlineExceeded):
		return errs.ErrTimeout.Wrap(err)
	case isConnectionError(err):
		return errs.ErrUnavailable.Wrap(err)
	}
	return err
}

func translateSQLState(err error, pg *pgconn.PgError, constraints map[string]*errs.Error) error {
	if e, ok := constraints[pg.ConstraintName]; ok {
		return e.Wrap(err)
	}
	switch {
	case pg.Code == "40001", pg.Code == "40P01", pg.Code == "55P03":
		return ErrConcurrent.Wrap(err)
	case pg.Code == "22021", pg.Code == "22P05": // text that the database's encoding cannot hold
		return errUnstorable.Wrap(err)
	case pg.Code == "57014": // query_canceled: our deadline, or an operator's pg_cancel_backend
		return errs.ErrTimeout.Wrap(err)
	case pg.Code == "53300": // too_many_connections
		return errs.ErrBusy.Wrap(err)
	case pg.Code == "25006": // read_only_sql_transaction: a standby, or a failover in progress
		return errs.ErrUnavailable.Wrap(err)
	case strings.HasPrefix(pg.Code, "08"), strings.HasPrefix(pg.Code, "57P"), strings.HasPrefix(pg.Code, "53"):
		return errs.ErrUnavailable.Wrap(err)
	}
	return err
}

func isConnectionError(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, driver.ErrBadConn) ||
		errors.Is(err, sql.ErrConnDone) || errors.Is(err, net.ErrClosed) || errors.Is(err, sql.ErrTxDone) ||
		pgconn.SafeToRetry(err) || strings.Contains(err.Error(), "unexpected EOF") ||
		strings.Contains(err.Error(), "conn closed")
}

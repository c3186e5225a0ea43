package web

import (
	"context"
	"embed"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/db"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the schema of what the web server keeps: idempotency keys.
func Migrations() db.Migration { return db.Embedded("web", migrations) }

const (
	// idempotencyLease is how much longer than a request may take a key stays locked when its instance dies.
	idempotencyLease = time.Minute
	// idempotencyTTL is how long an answer can be replayed.
	idempotencyTTL = 24 * time.Hour
)

// idempotencyRow is what is kept of a request.
type idempotencyRow struct {
	fingerprint []byte
	done        bool // something of it was committed
	status      *int
	answer      []byte
	wait        time.Duration // until the lease runs out, at least a second; 0: it has
}

// acquire locks id for this request. It reports false, with the row that is in the way, when the key was used before
// and its lease has not run out, or something was done under it.
func (s *Server) acquire(ctx context.Context, id, fingerprint []byte, lease uuid.UUID) (bool, idempotencyRow, error) {
	res, err := s.db.Querier(ctx).ExecContext(ctx, `
		INSERT INTO idempotency_keys AS k (id, fingerprint, lease, leased_till, expires_at)
		VALUES ($1, $2, $3, now() + $4::bigint * interval '1 microsecond', now() + $5::bigint * interval '1 microsecond')
		ON CONFLICT (id) DO UPDATE SET fingerprint = excluded.fingerprint, lease = excluded.lease,
			leased_till = excluded.leased_till, expires_at = excluded.expires_at, done = false, status = NULL, answer = NULL
		WHERE k.expires_at <= now()
			OR k.status IS NULL AND NOT k.done AND k.leased_till <= now() AND k.fingerprint = excluded.fingerprint`,
		id, fingerprint, lease, (s.cfg.RequestTimeout + idempotencyLease).Microseconds(), idempotencyTTL.Microseconds())
	if err != nil {
		return false, idempotencyRow{}, db.Translate(err, nil)
	}
	if n, err := res.RowsAffected(); err != nil || n == 1 {
		return n == 1, idempotencyRow{}, err
	}
	return s.inTheWay(ctx, id)
}

func (s *Server) inTheWay(ctx context.Context, id []byte) (bool, idempotencyRow, error) {
	var row idempotencyRow
	var wait float64
	err := s.db.Querier(ctx).QueryRowContext(ctx, `
		SELECT fingerprint, done, status, answer,
			CASE WHEN leased_till > now() THEN greatest(extract(epoch FROM leased_till - now()), 1) ELSE 0 END::float8
		FROM idempotency_keys WHERE id = $1`, id).Scan(&row.fingerprint, &row.done, &row.status, &row.answer, &wait)
	if db.IsNoRows(err) {
		return false, idempotencyRow{wait: time.Second}, nil // just released: as good as in flight
	}
	row.wait = time.Duration(wait * float64(time.Second))
	return false, row, db.Translate(err, nil)
}

// complete keeps the answer, unless the lease has passed to another request meanwhile.
func (s *Server) complete(ctx context.Context, id []byte, lease uuid.UUID, status int, answer []byte) error {
	_, err := s.db.Querier(ctx).ExecContext(ctx, `
		UPDATE idempotency_keys SET status = $3, answer = $4, expires_at = now() + $5::bigint * interval '1 microsecond'
		WHERE id = $1 AND lease = $2`, id, lease, status, answer, idempotencyTTL.Microseconds())
	return db.Translate(err, nil)
}

// mark notes, in the transaction that ctx carries, that something was done. Errors: ErrIdempotencyInFlight when the lease
// has passed to another request.
func (s *Server) mark(ctx context.Context, id []byte, lease uuid.UUID) error {
	res, err := s.db.Querier(ctx).ExecContext(ctx, `UPDATE idempotency_keys SET done = true WHERE id = $1 AND lease = $2`, id, lease)
	if err != nil {
		return db.Translate(err, nil)
	}
	n, err := res.RowsAffected()
	if err == nil && n == 0 {
		return ErrIdempotencyInFlight
	}
	return err
}

// release ends a lease. The request may be tried again, unless keepDone is set and it has done something.
func (s *Server) release(ctx context.Context, id []byte, lease uuid.UUID, keepDone bool) error {
	_, err := s.db.Querier(ctx).ExecContext(ctx, `
		WITH kept AS (UPDATE idempotency_keys SET leased_till = now() WHERE id = $1 AND lease = $2 AND done AND $3)
		DELETE FROM idempotency_keys WHERE id = $1 AND lease = $2 AND NOT (done AND $3)`, id, lease, keepDone)
	return db.Translate(err, nil)
}

// cleanupBatch bounds what one statement of CleanupIdempotencyKeys deletes.
const cleanupBatch = 1000

// CleanupIdempotencyKeys deletes expired keys and returns how many. Several instances may run it at once.
func (s *Server) CleanupIdempotencyKeys(ctx context.Context) (int64, error) {
	var total int64
	for {
		res, err := s.db.Querier(ctx).ExecContext(ctx, `
			DELETE FROM idempotency_keys WHERE id IN (
				SELECT id FROM idempotency_keys WHERE expires_at <= now() LIMIT $1 FOR UPDATE SKIP LOCKED)`, cleanupBatch)
		if err != nil {
			return total, db.Translate(err, nil)
		}
		n, err := res.RowsAffected()
		total += n
		if err != nil || n < cleanupBatch {
			return total, err
		}
	}
}

package sessions

import (
	"context"
	"database/sql"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/db"
)

// DirectRepository is the first rung: the SQL that a team has today, written by hand on database/sql.
type DirectRepository struct {
	db *db.DB
}

var _ Repository = (*DirectRepository)(nil)

// NewDirectRepository returns a DirectRepository on this pool.
func NewDirectRepository(d *db.DB) *DirectRepository { return &DirectRepository{db: d} }

const sessionColumns = `id, user_id, token_hash, created_at, last_seen_at, expires_at, idle_expires_at, ip, user_agent, version`

func scanSession(row interface{ Scan(dest ...any) error }) (Session, error) {
	var s Session
	err := row.Scan(&s.ID, &s.UserID, &s.TokenHash, &s.CreatedAt, &s.LastSeenAt, &s.ExpiresAt, &s.IdleExpiresAt,
		&s.IP, &s.UserAgent, &s.Version)
	return s, translate(err)
}

// scanSessions reads the result of a query and closes it.
func scanSessions(rows *sql.Rows, err error) ([]Session, error) {
	if err != nil {
		return nil, translate(err)
	}
	defer rows.Close()
	list := []Session{}
	for rows.Next() {
		s, err := scanSession(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, translate(rows.Err())
}

// translate maps an error of the database to the module's.
func translate(err error) error {
	if db.IsNoRows(err) {
		return ErrNotFound
	}
	return db.Translate(err, nil)
}

// ByToken implements Reader.
func (r *DirectRepository) ByToken(ctx context.Context, tokenHash Hash) (Session, error) {
	return scanSession(r.db.Querier(ctx).QueryRowContext(ctx,
		`SELECT `+sessionColumns+` FROM sessions WHERE token_hash = $1 AND idle_expires_at > clock_timestamp()`, tokenHash))
}

// List implements Reader.
func (r *DirectRepository) List(ctx context.Context, userID uuid.UUID) ([]Session, error) {
	return scanSessions(r.db.Querier(ctx).QueryContext(ctx,
		`SELECT `+sessionColumns+` FROM sessions WHERE user_id = $1 AND idle_expires_at > clock_timestamp()
		ORDER BY id DESC`, userID))
}

// Create implements Repository.
func (r *DirectRepository) Create(ctx context.Context, n NewSession) (Session, error) {
	return scanSession(r.db.Querier(ctx).QueryRowContext(ctx,
		`INSERT INTO sessions (id, user_id, token_hash, ip, user_agent, expires_at, idle_expires_at)
		VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6), now() + make_interval(secs => $7))
		RETURNING `+sessionColumns,
		n.ID, n.UserID, n.TokenHash, n.IP, n.UserAgent, n.Lifetime.Seconds(), min(n.Idle, n.Lifetime).Seconds()))
}

// Lock implements Repository.
func (r *DirectRepository) Lock(ctx context.Context, id uuid.UUID) (Session, error) {
	return scanSession(r.db.Querier(ctx).QueryRowContext(ctx,
		`SELECT `+sessionColumns+` FROM sessions WHERE id = $1 FOR UPDATE`, id))
}

// LockAll implements Repository. Whoever locks several sessions does so newest first, so that nobody waits in a circle.
func (r *DirectRepository) LockAll(ctx context.Context, userID uuid.UUID, skip int) ([]Session, error) {
	return scanSessions(r.db.Querier(ctx).QueryContext(ctx,
		`SELECT `+sessionColumns+` FROM sessions WHERE user_id = $1
			AND id <= (SELECT id FROM sessions WHERE user_id = $1 ORDER BY id DESC OFFSET $2 LIMIT 1)
		ORDER BY id DESC FOR UPDATE`, userID, skip))
}

// Rotate implements Repository.
func (r *DirectRepository) Rotate(ctx context.Context, s Session, tokenHash Hash) (Session, error) {
	return scanSession(r.db.Querier(ctx).QueryRowContext(ctx,
		`UPDATE sessions SET token_hash = $2, version = version + 1 WHERE id = $1 RETURNING `+sessionColumns, s.ID, tokenHash))
}

// Delete implements Repository.
func (r *DirectRepository) Delete(ctx context.Context, locked []Session) error {
	return r.exec(ctx, `DELETE FROM sessions WHERE id = ANY ($1::uuid[])`, idsOf(locked))
}

func idsOf(list []Session) []string {
	ids := make([]string, len(list))
	for i, s := range list {
		ids[i] = s.ID.String()
	}
	return ids
}

// Seen implements Repository.
func (r *DirectRepository) Seen(ctx context.Context, batch []Use, p SeenPolicy) (int64, error) {
	ids, ago := make([]string, len(batch)), make([]float64, len(batch))
	for i, u := range batch {
		ids[i], ago[i] = u.ID.String(), u.Ago.Seconds()
	}
	return r.count(ctx, `
		WITH used AS (
			SELECT id, clock_timestamp() - make_interval(secs => ago) AS at
			FROM unnest($1::uuid[], $2::float8[]) AS g (id, ago)
		), due AS (
			SELECT s.id, used.at FROM sessions s JOIN used USING (id)
			WHERE s.last_seen_at + make_interval(secs => $4) <= used.at
			ORDER BY s.id DESC FOR UPDATE OF s
		)
		UPDATE sessions s
		SET last_seen_at = due.at, idle_expires_at = least(s.expires_at, due.at + make_interval(secs => $3))
		FROM due WHERE s.id = due.id`, ids, ago, p.Idle.Seconds(), p.Interval.Seconds())
}

// DeleteExpired implements Repository.
func (r *DirectRepository) DeleteExpired(ctx context.Context, limit int) (int64, error) {
	return r.count(ctx, `
		DELETE FROM sessions WHERE id IN (
			SELECT id FROM sessions WHERE idle_expires_at <= clock_timestamp()
			ORDER BY idle_expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
		)`, limit)
}

// CountAttempt implements Repository.
func (r *DirectRepository) CountAttempt(ctx context.Context, a Attempt) (Tally, error) {
	var t Tally
	var reset float64
	err := r.db.Querier(ctx).QueryRowContext(ctx, `
		INSERT INTO sign_in_failures AS f (key, failures, expires_at)
		VALUES (coalesce((SELECT key FROM sign_in_clients WHERE key = $2), $1), 1, now() + make_interval(secs => $4))
		ON CONFLICT (key) DO UPDATE SET
			failures = CASE WHEN f.expires_at <= clock_timestamp() THEN 1 ELSE least(f.failures, $3) + 1 END,
			expires_at = CASE WHEN f.expires_at <= clock_timestamp() THEN excluded.expires_at ELSE f.expires_at END
		RETURNING key, failures, extract(epoch FROM expires_at - clock_timestamp())::float8`,
		a.Account, a.Client, a.Max, a.Window.Seconds()).Scan(&t.Key, &t.Failures, &reset)
	t.ResetAfter = time.Duration(reset * float64(time.Second))
	return t, translate(err)
}

// ForgiveAttempt implements Repository.
func (r *DirectRepository) ForgiveAttempt(ctx context.Context, key Hash) error {
	return r.exec(ctx, `UPDATE sign_in_failures SET failures = failures - 1 WHERE key = $1 AND failures > 0`, key)
}

// Recognise implements Repository.
func (r *DirectRepository) Recognise(ctx context.Context, client Hash, userID uuid.UUID) error {
	return r.exec(ctx, `INSERT INTO sign_in_clients (key, user_id) VALUES ($1, $2)
		ON CONFLICT (key) DO UPDATE SET user_id = excluded.user_id, seen_at = now()`, client, userID)
}

// Forget implements Repository.
func (r *DirectRepository) Forget(ctx context.Context, userID uuid.UUID) error {
	return r.exec(ctx, `DELETE FROM sign_in_clients WHERE user_id = $1`, userID)
}

// DeleteStale implements Repository.
func (r *DirectRepository) DeleteStale(ctx context.Context, unseen time.Duration, limit int) (int64, error) {
	failures, err := r.count(ctx, `DELETE FROM sign_in_failures WHERE key IN (
		SELECT key FROM sign_in_failures WHERE expires_at <= clock_timestamp() LIMIT $1 FOR UPDATE SKIP LOCKED)`, limit)
	if err != nil {
		return 0, err
	}
	clients, err := r.count(ctx, `DELETE FROM sign_in_clients WHERE key IN (
		SELECT key FROM sign_in_clients WHERE seen_at <= clock_timestamp() - make_interval(secs => $1) LIMIT $2
		FOR UPDATE SKIP LOCKED)`, unseen.Seconds(), limit)
	return failures + clients, err
}

func (r *DirectRepository) exec(ctx context.Context, query string, args ...any) error {
	_, err := r.db.Querier(ctx).ExecContext(ctx, query, args...)
	return translate(err)
}

// count runs a statement and returns how many rows it touched.
func (r *DirectRepository) count(ctx context.Context, query string, args ...any) (int64, error) {
	res, err := r.db.Querier(ctx).ExecContext(ctx, query, args...)
	if err != nil {
		return 0, translate(err)
	}
	return res.RowsAffected()
}

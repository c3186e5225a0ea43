package sessions

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/strata-accounts/strata/platform/db"
)

// PostgresRepository is the second rung: GORM models on the bounded pool.
type PostgresRepository struct {
	db *db.DB
}

var _ Repository = (*PostgresRepository)(nil)

// NewPostgresRepository returns a PostgresRepository on this pool.
func NewPostgresRepository(d *db.DB) *PostgresRepository { return &PostgresRepository{db: d} }

type sessionRow struct {
	ID            uuid.UUID `gorm:"primaryKey"`
	UserID        uuid.UUID
	TokenHash     Hash
	CreatedAt     time.Time `gorm:"autoCreateTime:false;default:now()"`
	LastSeenAt    time.Time `gorm:"default:now()"`
	ExpiresAt     deadline  `gorm:"type:timestamptz"`
	IdleExpiresAt deadline  `gorm:"type:timestamptz"`
	IP            string    `gorm:"column:ip"`
	UserAgent     string
	Version       int64 `gorm:"default:1"`
}

func (sessionRow) TableName() string { return "sessions" }

type failuresRow struct {
	Key        countKey `gorm:"primaryKey"`
	Failures   int
	ExpiresAt  deadline `gorm:"type:timestamptz"`
	ResetAfter float64  `gorm:"->"` // seconds until ExpiresAt; computed where it is asked for
}

func (failuresRow) TableName() string { return "sign_in_failures" }

// countKey is a column that is written as the client, where an account has been signed in to from it, or else the account.
type countKey struct {
	Hash
	client Hash
}

// GormValue implements gorm.Valuer.
func (k countKey) GormValue(context.Context, *gorm.DB) clause.Expr {
	return gorm.Expr("coalesce((SELECT key FROM sign_in_clients WHERE key = ?), ?)", k.client, k.Hash)
}

type clientRow struct {
	Key    Hash `gorm:"primaryKey"`
	UserID uuid.UUID
	SeenAt time.Time `gorm:"default:now()"`
}

func (clientRow) TableName() string { return "sign_in_clients" }

// deadline is a column that is written as so long from now by the database's clock, and read as the point in time.
type deadline struct {
	At    time.Time // exported for the cache, which keeps rows as JSON
	after time.Duration
}

// GormValue implements gorm.Valuer.
func (d deadline) GormValue(context.Context, *gorm.DB) clause.Expr {
	return gorm.Expr("now() + make_interval(secs => ?)", d.after.Seconds())
}

// Scan implements sql.Scanner.
func (d *deadline) Scan(src any) error {
	at, ok := src.(time.Time)
	if !ok {
		return fmt.Errorf("scan deadline: %T is not a time", src)
	}
	d.At = at
	return nil
}

func toSession(r sessionRow) Session {
	return Session{
		ID: r.ID, UserID: r.UserID, TokenHash: r.TokenHash, CreatedAt: r.CreatedAt, LastSeenAt: r.LastSeenAt,
		ExpiresAt: r.ExpiresAt.At, IdleExpiresAt: r.IdleExpiresAt.At, IP: r.IP, UserAgent: r.UserAgent, Version: r.Version,
	}
}

func fromNew(n NewSession) sessionRow {
	return sessionRow{
		ID: n.ID, UserID: n.UserID, TokenHash: n.TokenHash, IP: n.IP, UserAgent: n.UserAgent,
		ExpiresAt: deadline{after: n.Lifetime}, IdleExpiresAt: deadline{after: min(n.Idle, n.Lifetime)},
	}
}

func toSessions(rows []sessionRow) []Session {
	list := make([]Session, len(rows))
	for i, row := range rows {
		list[i] = toSession(row)
	}
	return list
}

// ByToken implements Reader.
func (r *PostgresRepository) ByToken(ctx context.Context, tokenHash Hash) (Session, error) {
	var row sessionRow
	err := r.db.Gorm(ctx).Take(&row, "token_hash = ? AND idle_expires_at > clock_timestamp()", tokenHash).Error
	return toSession(row), translate(err)
}

// stored returns the session with the token of this hash, an expired one too.
func (r *PostgresRepository) stored(ctx context.Context, tokenHash Hash) (Session, error) {
	var row sessionRow
	err := r.db.Gorm(ctx).Take(&row, "token_hash = ?", tokenHash).Error
	return toSession(row), translate(err)
}

// List implements Reader.
func (r *PostgresRepository) List(ctx context.Context, userID uuid.UUID) ([]Session, error) {
	var rows []sessionRow
	err := r.db.Gorm(ctx).Order("id DESC").Find(&rows, "user_id = ? AND idle_expires_at > clock_timestamp()", userID).Error
	return toSessions(rows), translate(err)
}

// Create implements Repository.
func (r *PostgresRepository) Create(ctx context.Context, n NewSession) (Session, error) {
	row := fromNew(n)
	err := r.db.Gorm(ctx).Clauses(clause.Returning{}).Create(&row).Error
	return toSession(row), translate(err)
}

// Lock implements Repository.
func (r *PostgresRepository) Lock(ctx context.Context, id uuid.UUID) (Session, error) {
	var row sessionRow
	err := r.db.Gorm(ctx).Clauses(clause.Locking{Strength: "UPDATE"}).Take(&row, "id = ?", id).Error
	return toSession(row), translate(err)
}

// LockAll implements Repository. Whoever locks several sessions does so newest first, so that nobody waits in a circle.
func (r *PostgresRepository) LockAll(ctx context.Context, userID uuid.UUID, skip int) ([]Session, error) {
	newest := r.db.Gorm(ctx).Model(&sessionRow{}).Select("id").Where("user_id = ?", userID).
		Order("id DESC").Offset(skip).Limit(1)
	var rows []sessionRow
	err := r.db.Gorm(ctx).Clauses(clause.Locking{Strength: "UPDATE"}).Order("id DESC").
		Find(&rows, "user_id = ? AND id <= (?)", userID, newest).Error
	return toSessions(rows), translate(err)
}

// Rotate implements Repository.
func (r *PostgresRepository) Rotate(ctx context.Context, s Session, tokenHash Hash) (Session, error) {
	row := sessionRow{ID: s.ID}
	res := r.db.Gorm(ctx).Model(&row).Clauses(clause.Returning{}).
		Updates(map[string]any{"token_hash": tokenHash, "version": gorm.Expr("version + 1")})
	if res.Error == nil && res.RowsAffected == 0 {
		return Session{}, ErrNotFound
	}
	return toSession(row), translate(res.Error)
}

// Delete implements Repository.
func (r *PostgresRepository) Delete(ctx context.Context, locked []Session) error {
	if len(locked) == 0 {
		return nil
	}
	return translate(r.db.Gorm(ctx).Delete(&sessionRow{}, "id IN ?", idsOf(locked)).Error)
}

// Seen implements Repository.
func (r *PostgresRepository) Seen(ctx context.Context, batch []Use, p SeenPolicy) (int64, error) {
	ids, ago := make([]string, len(batch)), make([]string, len(batch))
	for i, u := range batch {
		ids[i], ago[i] = u.ID.String(), strconv.FormatFloat(u.Ago.Seconds(), 'f', -1, 64)
	}
	due := r.db.Gorm(ctx).Table("sessions AS s").Select("s.id, used.at").
		Joins(`JOIN (SELECT id, clock_timestamp() - make_interval(secs => ago) AS at
			FROM unnest(?::uuid[], ?::float8[]) AS g (id, ago)) AS used ON used.id = s.id`, array(ids), array(ago)).
		Where("s.last_seen_at + make_interval(secs => ?) <= used.at", p.Interval.Seconds()).
		Order("s.id DESC").Clauses(clause.Locking{Strength: "UPDATE", Table: clause.Table{Name: "s"}})
	res := r.db.Gorm(ctx).Exec(`WITH due AS (?) UPDATE sessions s
		SET last_seen_at = due.at, idle_expires_at = least(s.expires_at, due.at + make_interval(secs => ?))
		FROM due WHERE s.id = due.id`, due, p.Idle.Seconds())
	return res.RowsAffected, translate(res.Error)
}

// array renders a PostgreSQL array of what needs no quotes: GORM would spread a slice over several parameters.
func array(items []string) string { return "{" + strings.Join(items, ",") + "}" }

// DeleteExpired implements Repository.
func (r *PostgresRepository) DeleteExpired(ctx context.Context, limit int) (int64, error) {
	expired := r.db.Gorm(ctx).Model(&sessionRow{}).Select("id").Where("idle_expires_at <= clock_timestamp()").
		Order("idle_expires_at").Limit(limit).Clauses(clause.Locking{Strength: "UPDATE", Options: "SKIP LOCKED"})
	res := r.db.Gorm(ctx).Delete(&sessionRow{}, "id IN (?)", expired)
	return res.RowsAffected, translate(res.Error)
}

// CountAttempt implements Repository.
func (r *PostgresRepository) CountAttempt(ctx context.Context, a Attempt) (Tally, error) {
	row := failuresRow{Key: countKey{a.Account, a.Client}, Failures: 1, ExpiresAt: deadline{after: a.Window}}
	const over = "sign_in_failures.expires_at <= clock_timestamp()"
	upsert := clause.OnConflict{
		Columns: []clause.Column{{Name: "key"}},
		DoUpdates: clause.Assignments(map[string]any{
			"failures":   gorm.Expr("CASE WHEN "+over+" THEN 1 ELSE least(sign_in_failures.failures, ?) + 1 END", a.Max),
			"expires_at": gorm.Expr("CASE WHEN " + over + " THEN excluded.expires_at ELSE sign_in_failures.expires_at END"),
		}),
	}
	returned := clause.Returning{Columns: []clause.Column{
		{Name: "key"}, {Name: "failures"}, {Name: "extract(epoch FROM expires_at - clock_timestamp())::float8 AS reset_after", Raw: true},
	}}
	err := r.db.Gorm(ctx).Clauses(upsert, returned).Create(&row).Error
	reset := time.Duration(row.ResetAfter * float64(time.Second))
	return Tally{Key: row.Key.Hash, Failures: row.Failures, ResetAfter: reset}, translate(err)
}

// ForgiveAttempt implements Repository.
func (r *PostgresRepository) ForgiveAttempt(ctx context.Context, key Hash) error {
	return translate(r.db.Gorm(ctx).Model(&failuresRow{}).Where("key = ? AND failures > 0", key).
		Update("failures", gorm.Expr("failures - 1")).Error)
}

// Recognise implements Repository.
func (r *PostgresRepository) Recognise(ctx context.Context, client Hash, userID uuid.UUID) error {
	upsert := clause.OnConflict{
		Columns: []clause.Column{{Name: "key"}},
		DoUpdates: clause.Assignments(map[string]any{
			"user_id": gorm.Expr("excluded.user_id"), "seen_at": gorm.Expr("now()"),
		}),
	}
	return translate(r.db.Gorm(ctx).Clauses(upsert).Create(&clientRow{Key: client, UserID: userID}).Error)
}

// Forget implements Repository.
func (r *PostgresRepository) Forget(ctx context.Context, userID uuid.UUID) error {
	return translate(r.db.Gorm(ctx).Delete(&clientRow{}, "user_id = ?", userID).Error)
}

// DeleteStale implements Repository.
func (r *PostgresRepository) DeleteStale(ctx context.Context, unseen time.Duration, limit int) (int64, error) {
	free := clause.Locking{Strength: "UPDATE", Options: "SKIP LOCKED"}
	over := r.db.Gorm(ctx).Model(&failuresRow{}).Select("key").Where("expires_at <= clock_timestamp()").Limit(limit).Clauses(free)
	failures := r.db.Gorm(ctx).Delete(&failuresRow{}, "key IN (?)", over)
	if failures.Error != nil {
		return 0, translate(failures.Error)
	}
	old := r.db.Gorm(ctx).Model(&clientRow{}).Select("key").
		Where("seen_at <= clock_timestamp() - make_interval(secs => ?)", unseen.Seconds()).Limit(limit).Clauses(free)
	clients := r.db.Gorm(ctx).Delete(&clientRow{}, "key IN (?)", old)
	return failures.RowsAffected + clients.RowsAffected, translate(clients.Error)
}

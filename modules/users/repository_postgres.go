package users

import (
	"context"
	"database/sql"
	"encoding/json"
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

type userRow struct {
	ID            uuid.UUID `gorm:"primaryKey"`
	Email         string
	EmailVerified bool
	Name          string
	Status        Status
	Metadata      json.RawMessage
	Version       int64      `gorm:"default:1"`
	CreatedAt     time.Time  `gorm:"autoCreateTime:false;default:now()"`
	UpdatedAt     time.Time  `gorm:"autoUpdateTime:false;default:now()"`
	LastSignInAt  *time.Time `gorm:"default:null"`
}

func (userRow) TableName() string { return "users" }

type credentialRow struct {
	UserID    uuid.UUID `gorm:"primaryKey"`
	Hash      string
	UpdatedAt time.Time `gorm:"autoUpdateTime:false;default:now()"`
}

func (credentialRow) TableName() string { return "user_credentials" }

type tokenRow struct {
	Hash      []byte `gorm:"primaryKey"`
	UserID    uuid.UUID
	Purpose   Purpose
	Email     string
	CreatedAt time.Time `gorm:"autoCreateTime:false;default:now()"`
	ExpiresAt time.Time
}

func (tokenRow) TableName() string { return "user_tokens" }

func toUser(r userRow) User {
	return User(r)
}

func fromUser(u User) userRow {
	return userRow(u)
}

// ByID implements Reader.
func (r *PostgresRepository) ByID(ctx context.Context, id uuid.UUID) (User, error) {
	var row userRow
	err := r.db.Gorm(ctx).Take(&row, "id = ?", id).Error
	return toUser(row), translate(err)
}

// ByEmail implements Reader.
func (r *PostgresRepository) ByEmail(ctx context.Context, email string) (User, error) {
	var row userRow
	err := r.db.Gorm(ctx).Take(&row, "lower(email) = lower(?)", email).Error
	return toUser(row), translate(err)
}

// List implements Reader.
func (r *PostgresRepository) List(ctx context.Context, f Filter) ([]User, error) {
	query := r.db.Gorm(ctx).Order("created_at DESC, id DESC").Limit(f.Limit)
	for _, c := range f.conditions() {
		query = query.Where(c.sql, c.args...)
	}
	rows := make([]userRow, 0, f.Limit)
	if err := query.Find(&rows).Error; err != nil {
		return nil, translate(err)
	}
	page := make([]User, len(rows))
	for i, row := range rows {
		page[i] = toUser(row)
	}
	return page, nil
}

// Create implements Repository.
func (r *PostgresRepository) Create(ctx context.Context, u User) (User, error) {
	row := userRow{ID: u.ID, Email: u.Email, EmailVerified: u.EmailVerified, Name: u.Name, Status: u.Status, Metadata: u.Metadata}
	err := r.db.Gorm(ctx).Clauses(clause.Returning{}).Create(&row).Error
	return toUser(row), translate(err)
}

// Import implements Repository.
func (r *PostgresRepository) Import(ctx context.Context, batch []ImportUser) (results []Imported, err error) {
	err = r.db.InTx(ctx, func(ctx context.Context) error {
		results, err = runImport(batch, func(query string, args ...any) (*sql.Rows, error) {
			return r.db.Gorm(ctx).Raw(query, args...).Rows()
		})
		return err
	})
	return results, err
}

// Update implements Repository.
func (r *PostgresRepository) Update(ctx context.Context, id uuid.UUID, mutate func(*User) error) (User, error) {
	var u User
	err := r.db.InTx(ctx, func(ctx context.Context) error {
		var row userRow
		if err := r.db.Gorm(ctx).Clauses(clause.Locking{Strength: "UPDATE"}).Take(&row, "id = ?", id).Error; err != nil {
			return err
		}
		before := toUser(row)
		u = before
		if err := mutate(&u); err != nil || u.equal(before) {
			return err
		}
		row = fromUser(u)
		err := r.db.Gorm(ctx).Model(&row).Clauses(clause.Returning{}).Updates(map[string]any{
			"email": u.Email, "email_verified": u.EmailVerified, "name": u.Name, "status": u.Status, "metadata": u.Metadata,
			"version": gorm.Expr("version + 1"), "updated_at": gorm.Expr("clock_timestamp()"),
		}).Error
		u = toUser(row)
		return err
	})
	return u, translate(err)
}

// SignedIn implements Repository.
func (r *PostgresRepository) SignedIn(ctx context.Context, id uuid.UUID) (User, error) {
	row := userRow{ID: id}
	res := r.db.Gorm(ctx).Model(&row).Clauses(clause.Returning{}).Where("status = ?", Active).Updates(map[string]any{
		"last_sign_in_at": gorm.Expr("clock_timestamp()"),
		"version":         gorm.Expr("version + 1"), "updated_at": gorm.Expr("clock_timestamp()"),
	})
	return toUser(row), touched(res)
}

// Hold implements Repository.
func (r *PostgresRepository) Hold(ctx context.Context, id uuid.UUID) error {
	var row userRow
	err := r.db.Gorm(ctx).Clauses(clause.Locking{Strength: "KEY SHARE"}).Select("id").Take(&row, "id = ?", id).Error
	return translate(err)
}

// Delete implements Repository.
func (r *PostgresRepository) Delete(ctx context.Context, id uuid.UUID) error {
	return touched(r.db.Gorm(ctx).Delete(&userRow{ID: id}))
}

// Credential implements Reader.
func (r *PostgresRepository) Credential(ctx context.Context, id uuid.UUID) (string, error) {
	var row credentialRow
	err := r.db.Gorm(ctx).Take(&row, "user_id = ?", id).Error
	return row.Hash, translate(err)
}

// SetCredential implements Repository.
func (r *PostgresRepository) SetCredential(ctx context.Context, id uuid.UUID, hash string) error {
	upsert := clause.OnConflict{
		Columns: []clause.Column{{Name: "user_id"}},
		DoUpdates: clause.Assignments(map[string]any{
			"hash": gorm.Expr("excluded.hash"), "updated_at": gorm.Expr("clock_timestamp()"),
		}),
	}
	return touched(r.db.Gorm(ctx).Clauses(upsert).Create(&credentialRow{UserID: id, Hash: hash}))
}

// SwapCredential implements Repository.
func (r *PostgresRepository) SwapCredential(ctx context.Context, id uuid.UUID, old, hash string) (bool, error) {
	res := r.db.Gorm(ctx).Model(&credentialRow{}).Where("user_id = ? AND hash = ?", id, old).
		Updates(map[string]any{"hash": hash, "updated_at": gorm.Expr("clock_timestamp()")})
	return res.RowsAffected > 0, translate(res.Error)
}

// CreateToken implements Repository.
func (r *PostgresRepository) CreateToken(ctx context.Context, t Token) (time.Time, error) {
	var expires time.Time
	err := r.db.Gorm(ctx).Raw(`INSERT INTO user_tokens (user_id, hash, purpose, email, expires_at)
		VALUES (?, ?, ?, ?, now() + make_interval(secs => ?)) RETURNING expires_at`, // an expression's value comes back only so
		t.UserID, t.Hash, t.Purpose, t.Email, t.ExpiresIn.Seconds()).Scan(&expires).Error
	return expires, translate(err)
}

// TakeToken implements Repository.
func (r *PostgresRepository) TakeToken(ctx context.Context, purpose Purpose, hash []byte) (Token, error) {
	var rows []tokenRow
	res := r.db.Gorm(ctx).Clauses(clause.Returning{}).
		Where("hash = ? AND purpose = ? AND expires_at > clock_timestamp()", hash, purpose).Delete(&rows)
	if res.Error != nil {
		return Token{}, translate(res.Error)
	}
	if len(rows) == 0 {
		return Token{}, ErrTokenInvalid
	}
	row := rows[0]
	return Token{Hash: row.Hash, UserID: row.UserID, Purpose: row.Purpose, Email: row.Email, ExpiresAt: row.ExpiresAt}, nil
}

// DeleteTokens implements Repository.
func (r *PostgresRepository) DeleteTokens(ctx context.Context, id uuid.UUID) error {
	return translate(r.db.Gorm(ctx).Where("user_id = ?", id).Delete(&tokenRow{}).Error)
}

// DeleteExpiredTokens implements Repository.
func (r *PostgresRepository) DeleteExpiredTokens(ctx context.Context, limit int) (int64, error) {
	expired := r.db.Gorm(ctx).Model(&tokenRow{}).Select("hash").Where("expires_at <= clock_timestamp()").Limit(limit).
		Clauses(clause.Locking{Strength: "UPDATE", Options: "SKIP LOCKED"})
	res := r.db.Gorm(ctx).Delete(&tokenRow{}, "hash IN (?)", expired)
	return res.RowsAffected, translate(res.Error)
}

// touched returns the error of a statement that must touch a row.
func touched(res *gorm.DB) error {
	if res.Error == nil && res.RowsAffected == 0 {
		return ErrNotFound
	}
	return translate(res.Error)
}

package users

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
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

const userColumns = `id, email, email_verified, name, status, metadata, version, created_at, updated_at, last_sign_in_at`

func scanUser(row interface{ Scan(dest ...any) error }) (User, error) {
	var u User
	err := row.Scan(&u.ID, &u.Email, &u.EmailVerified, &u.Name, &u.Status, &u.Metadata, &u.Version,
		&u.CreatedAt, &u.UpdatedAt, &u.LastSignInAt)
	return u, translate(err)
}

// translate maps an error of the database to the module's.
func translate(err error) error {
	if db.IsNoRows(err) {
		return ErrNotFound
	}
	return db.Translate(err, constraints)
}

// ByID implements Reader.
func (r *DirectRepository) ByID(ctx context.Context, id uuid.UUID) (User, error) {
	return scanUser(r.db.Querier(ctx).QueryRowContext(ctx, `SELECT `+userColumns+` FROM users WHERE id = $1`, id))
}

// ByEmail implements Reader.
func (r *DirectRepository) ByEmail(ctx context.Context, email string) (User, error) {
	return scanUser(r.db.Querier(ctx).QueryRowContext(ctx,
		`SELECT `+userColumns+` FROM users WHERE lower(email) = lower($1)`, email))
}

// List implements Reader.
func (r *DirectRepository) List(ctx context.Context, f Filter) ([]User, error) {
	var where []string
	var args []any
	add := func(condition string, values ...any) {
		for _, v := range values {
			args = append(args, v)
			condition = strings.Replace(condition, "?", fmt.Sprintf("$%d", len(args)), 1)
		}
		where = append(where, condition)
	}
	for _, c := range f.conditions() {
		add(c.sql, c.args...)
	}
	args = append(args, f.Limit)
	rows, err := r.db.Querier(ctx).QueryContext(ctx, fmt.Sprintf(
		`SELECT `+userColumns+` FROM users WHERE %s ORDER BY created_at DESC, id DESC LIMIT $%d`,
		strings.Join(where, " AND "), len(args)), args...)
	if err != nil {
		return nil, translate(err)
	}
	defer rows.Close()
	page := make([]User, 0, f.Limit)
	for rows.Next() {
		u, err := scanUser(rows)
		if err != nil {
			return nil, err
		}
		page = append(page, u)
	}
	return page, translate(rows.Err())
}

// condition is one term of a WHERE clause, with ? for its arguments.
type condition struct {
	sql  string
	args []any
}

// conditions returns what f asks for. Both rungs query by it: what selects a page is a rule, not a matter of the rung.
func (f Filter) conditions() []condition {
	cs := []condition{{"status = ?", []any{string(f.Status)}}}
	if f.Status == "" {
		cs[0] = condition{"status <> ?", []any{string(Deleted)}}
	}
	if f.Email != "" {
		cs = append(cs, condition{"lower(email) = lower(?)", []any{f.Email}})
	}
	if f.Query != "" {
		prefix := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(f.Query) + "%"
		cs = append(cs, condition{"(lower(email) LIKE lower(?) OR lower(name) LIKE lower(?))", []any{prefix, prefix}})
	}
	if f.CreatedAfter != nil {
		cs = append(cs, condition{"created_at > ?", []any{*f.CreatedAfter}})
	}
	if f.After != nil {
		cs = append(cs, condition{"(created_at, id) < (?, ?)", []any{f.After.CreatedAt, f.After.ID}})
	}
	return cs
}

// Create implements Repository.
func (r *DirectRepository) Create(ctx context.Context, u User) (User, error) {
	return scanUser(r.db.Querier(ctx).QueryRowContext(ctx,
		`INSERT INTO users (id, email, email_verified, name, status, metadata) VALUES ($1, $2, $3, $4, $5, $6)
		RETURNING `+userColumns, u.ID, u.Email, u.EmailVerified, u.Name, u.Status, u.Metadata))
}

// Import implements Repository.
func (r *DirectRepository) Import(ctx context.Context, batch []ImportUser) (results []Imported, err error) {
	err = r.db.InTx(ctx, func(ctx context.Context) error {
		results, err = runImport(batch, func(query string, args ...any) (*sql.Rows, error) {
			return r.db.Querier(ctx).QueryContext(ctx, query, args...)
		})
		return err
	})
	return results, err
}

// Update implements Repository.
func (r *DirectRepository) Update(ctx context.Context, id uuid.UUID, mutate func(*User) error) (User, error) {
	var u User
	err := r.db.InTx(ctx, func(ctx context.Context) error {
		q := r.db.Querier(ctx)
		before, err := scanUser(q.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users WHERE id = $1 FOR UPDATE`, id))
		if err != nil {
			return err
		}
		u = before
		if err := mutate(&u); err != nil || u.equal(before) {
			return err
		}
		u, err = scanUser(q.QueryRowContext(ctx,
			`UPDATE users SET email = $2, email_verified = $3, name = $4, status = $5, metadata = $6,
				version = version + 1, updated_at = clock_timestamp()
			WHERE id = $1 RETURNING `+userColumns, id, u.Email, u.EmailVerified, u.Name, u.Status, u.Metadata))
		return err
	})
	return u, err
}

// SignedIn implements Repository.
func (r *DirectRepository) SignedIn(ctx context.Context, id uuid.UUID) (User, error) {
	return scanUser(r.db.Querier(ctx).QueryRowContext(ctx,
		`UPDATE users SET last_sign_in_at = clock_timestamp(), version = version + 1, updated_at = clock_timestamp()
		WHERE id = $1 AND status = $2 RETURNING `+userColumns, id, Active))
}

// Hold implements Repository.
func (r *DirectRepository) Hold(ctx context.Context, id uuid.UUID) error {
	var held uuid.UUID
	err := r.db.Querier(ctx).QueryRowContext(ctx, `SELECT id FROM users WHERE id = $1 FOR KEY SHARE`, id).Scan(&held)
	return translate(err)
}

// Delete implements Repository.
func (r *DirectRepository) Delete(ctx context.Context, id uuid.UUID) error {
	return r.exec(ctx, `DELETE FROM users WHERE id = $1`, id)
}

// Credential implements Reader.
func (r *DirectRepository) Credential(ctx context.Context, id uuid.UUID) (string, error) {
	var hash string
	err := r.db.Querier(ctx).QueryRowContext(ctx, `SELECT hash FROM user_credentials WHERE user_id = $1`, id).Scan(&hash)
	return hash, translate(err)
}

// SetCredential implements Repository.
func (r *DirectRepository) SetCredential(ctx context.Context, id uuid.UUID, hash string) error {
	return r.exec(ctx, `INSERT INTO user_credentials (user_id, hash) VALUES ($1, $2)
		ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, updated_at = clock_timestamp()`, id, hash)
}

// SwapCredential implements Repository.
func (r *DirectRepository) SwapCredential(ctx context.Context, id uuid.UUID, old, hash string) (bool, error) {
	res, err := r.db.Querier(ctx).ExecContext(ctx,
		`UPDATE user_credentials SET hash = $3, updated_at = clock_timestamp() WHERE user_id = $1 AND hash = $2`, id, old, hash)
	if err != nil {
		return false, translate(err)
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// CreateToken implements Repository.
func (r *DirectRepository) CreateToken(ctx context.Context, t Token) (time.Time, error) {
	var expires time.Time
	err := r.db.Querier(ctx).QueryRowContext(ctx,
		`INSERT INTO user_tokens (hash, user_id, purpose, email, expires_at)
		VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5)) RETURNING expires_at`,
		t.Hash, t.UserID, t.Purpose, t.Email, t.ExpiresIn.Seconds()).Scan(&expires)
	return expires, translate(err)
}

// TakeToken implements Repository.
func (r *DirectRepository) TakeToken(ctx context.Context, purpose Purpose, hash []byte) (Token, error) {
	t := Token{Hash: hash, Purpose: purpose}
	err := r.db.Querier(ctx).QueryRowContext(ctx,
		`DELETE FROM user_tokens WHERE hash = $1 AND purpose = $2 AND expires_at > clock_timestamp()
		RETURNING user_id, email, expires_at`, hash, purpose).Scan(&t.UserID, &t.Email, &t.ExpiresAt)
	if db.IsNoRows(err) {
		return Token{}, ErrTokenInvalid
	}
	return t, translate(err)
}

// DeleteTokens implements Repository.
func (r *DirectRepository) DeleteTokens(ctx context.Context, id uuid.UUID) error {
	_, err := r.db.Querier(ctx).ExecContext(ctx, `DELETE FROM user_tokens WHERE user_id = $1`, id)
	return translate(err)
}

// DeleteExpiredTokens implements Repository.
func (r *DirectRepository) DeleteExpiredTokens(ctx context.Context, limit int) (int64, error) {
	res, err := r.db.Querier(ctx).ExecContext(ctx, `DELETE FROM user_tokens WHERE hash IN (
		SELECT hash FROM user_tokens WHERE expires_at <= clock_timestamp() LIMIT $1 FOR UPDATE SKIP LOCKED)`, limit)
	if err != nil {
		return 0, translate(err)
	}
	return res.RowsAffected()
}

// exec runs a statement that must touch a row.
func (r *DirectRepository) exec(ctx context.Context, query string, args ...any) error {
	res, err := r.db.Querier(ctx).ExecContext(ctx, query, args...)
	if err != nil {
		return translate(err)
	}
	if n, err := res.RowsAffected(); err != nil || n > 0 {
		return err
	}
	return ErrNotFound
}

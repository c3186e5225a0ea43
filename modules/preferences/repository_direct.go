package preferences

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

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

const definitionColumns = `key, schema, default_value, description, version, created_at, updated_at`

func scanDefinition(row interface{ Scan(dest ...any) error }) (Definition, error) {
	var d Definition
	err := row.Scan(&d.Key, &d.Schema, &d.Default, &d.Description, &d.Version, &d.CreatedAt, &d.UpdatedAt)
	return d, translate(err)
}

// translate maps an error of the database to the module's.
func translate(err error) error {
	if db.IsNoRows(err) {
		return ErrNotDefined
	}
	return db.Translate(err, constraints)
}

// Definitions implements Reader.
func (r *DirectRepository) Definitions(ctx context.Context) (Catalogue, error) {
	rows, err := r.db.Querier(ctx).QueryContext(ctx,
		`SELECT `+definitionColumns+` FROM preference_definitions ORDER BY key COLLATE "C"`)
	if err != nil {
		return Catalogue{}, translate(err)
	}
	defer rows.Close()
	var definitions []Definition
	for rows.Next() {
		d, err := scanDefinition(rows)
		if err != nil {
			return Catalogue{}, err
		}
		definitions = append(definitions, d)
	}
	if err := rows.Err(); err != nil {
		return Catalogue{}, translate(err)
	}
	return newCatalogue(definitions), nil
}

// CreateDefinition implements Repository.
func (r *DirectRepository) CreateDefinition(ctx context.Context, d Definition) (Definition, bool, error) {
	created, err := scanDefinition(r.db.Querier(ctx).QueryRowContext(ctx,
		`INSERT INTO preference_definitions (key, schema, default_value, description) VALUES ($1, $2, $3, $4)
		ON CONFLICT DO NOTHING RETURNING `+definitionColumns, d.Key, d.Schema, d.Default, d.Description))
	if errors.Is(err, ErrNotDefined) { // no row came back: nothing was inserted
		return Definition{}, false, nil
	}
	return created, err == nil, err
}

// UpdateDefinition implements Repository.
func (r *DirectRepository) UpdateDefinition(ctx context.Context, key string, mutate func(*Definition) error) (Definition, error) {
	var d Definition
	err := r.db.InTx(ctx, func(ctx context.Context) error {
		q := r.db.Querier(ctx)
		before, err := scanDefinition(q.QueryRowContext(ctx,
			`SELECT `+definitionColumns+` FROM preference_definitions WHERE key = $1 FOR UPDATE`, key))
		if err != nil {
			return err
		}
		d = before
		if err := mutate(&d); err != nil || d.equal(before) {
			return err
		}
		d, err = scanDefinition(q.QueryRowContext(ctx,
			`UPDATE preference_definitions SET schema = $2, default_value = $3, description = $4,
				version = version + 1, updated_at = clock_timestamp()
			WHERE key = $1 RETURNING `+definitionColumns, key, d.Schema, d.Default, d.Description))
		return err
	})
	return d, err
}

// DeleteDefinition implements Repository.
func (r *DirectRepository) DeleteDefinition(ctx context.Context, key string) error {
	res, err := r.db.Querier(ctx).ExecContext(ctx, `DELETE FROM preference_definitions WHERE key = $1`, key)
	if err != nil {
		return db.Translate(err, referenced)
	}
	if n, err := res.RowsAffected(); err != nil || n > 0 {
		return err
	}
	return ErrNotDefined
}

// LockDefinitions implements Repository.
func (r *DirectRepository) LockDefinitions(ctx context.Context, keys []string) error {
	_, err := r.db.Querier(ctx).ExecContext(ctx,
		`SELECT FROM preference_definitions WHERE key = ANY ($1) ORDER BY key FOR SHARE`, keys)
	return translate(err)
}

// Values implements Reader.
func (r *DirectRepository) Values(ctx context.Context, userID uuid.UUID) (Values, error) {
	rows, err := r.db.Querier(ctx).QueryContext(ctx,
		`SELECT p.version, v.key, v.value FROM user_preferences p LEFT JOIN user_preference_values v USING (user_id)
		WHERE p.user_id = $1`, userID)
	if err != nil {
		return Values{}, translate(err)
	}
	defer rows.Close()
	v := Values{UserID: userID}
	for rows.Next() {
		var key sql.NullString
		var value []byte
		if err := rows.Scan(&v.Version, &key, &value); err != nil {
			return Values{}, translate(err)
		}
		if key.Valid { // the join's other side is missing when nothing is set
			v.set(key.String, value)
		}
	}
	return v, translate(rows.Err())
}

// EachValue implements Repository.
func (r *DirectRepository) EachValue(ctx context.Context, key string, visit func(json.RawMessage, int64) error) error {
	rows, err := r.db.Querier(ctx).QueryContext(ctx,
		`SELECT value::text, count(*) FROM user_preference_values WHERE key = $1 GROUP BY value::text`, key)
	if err != nil {
		return translate(err)
	}
	return eachRow(rows, visit)
}

func eachRow(rows *sql.Rows, visit func(json.RawMessage, int64) error) error {
	defer rows.Close()
	for rows.Next() {
		var value []byte
		var users int64
		if err := rows.Scan(&value, &users); err != nil {
			return translate(err)
		}
		if err := visit(value, users); err != nil {
			return err
		}
	}
	return translate(rows.Err())
}

// UpdateValues implements Repository.
func (r *DirectRepository) UpdateValues(ctx context.Context, userID uuid.UUID, mutate func(*Values) error) (Values, error) {
	var v Values
	err := r.db.InTx(ctx, func(ctx context.Context) error {
		if err := r.lockValues(ctx, userID); err != nil {
			return err
		}
		before, err := r.Values(ctx, userID)
		if err != nil {
			return err
		}
		v = before.clone()
		if err := mutate(&v); err != nil {
			return err
		}
		set, unset := before.diff(v)
		if len(set)+len(unset) == 0 {
			return nil
		}
		if err := r.storeValues(ctx, v, set, unset); err != nil {
			return err
		}
		return translate(r.db.Querier(ctx).QueryRowContext(ctx,
			`UPDATE user_preferences SET version = version + 1, updated_at = clock_timestamp()
			WHERE user_id = $1 RETURNING version`, userID).Scan(&v.Version))
	})
	return v, err
}

// lockValues locks the user's row, which it makes for a first value.
func (r *DirectRepository) lockValues(ctx context.Context, userID uuid.UUID) error {
	q := r.db.Querier(ctx)
	if _, err := q.ExecContext(ctx,
		`INSERT INTO user_preferences (user_id) VALUES ($1) ON CONFLICT DO NOTHING`, userID); err != nil {
		return translate(err)
	}
	_, err := q.ExecContext(ctx, `SELECT FROM user_preferences WHERE user_id = $1 FOR UPDATE`, userID)
	return translate(err)
}

func (r *DirectRepository) storeValues(ctx context.Context, v Values, set, unset []string) error {
	q := r.db.Querier(ctx)
	values := make([]string, len(set))
	for i, key := range set {
		value, _ := v.get(key)
		values[i] = string(value)
	}
	if _, err := q.ExecContext(ctx,
		`INSERT INTO user_preference_values (user_id, key, value)
		SELECT $1, g.key, g.value::json FROM unnest($2::text[], $3::text[]) AS g (key, value)
		ON CONFLICT (user_id, key) DO UPDATE SET value = excluded.value`, v.UserID, set, values); err != nil {
		return translate(err)
	}
	_, err := q.ExecContext(ctx,
		`DELETE FROM user_preference_values WHERE user_id = $1 AND key = ANY ($2)`, v.UserID, unset)
	return translate(err)
}

// DeleteValues implements Repository.
func (r *DirectRepository) DeleteValues(ctx context.Context, userID uuid.UUID) error {
	_, err := r.db.Querier(ctx).ExecContext(ctx, `DELETE FROM user_preferences WHERE user_id = $1`, userID)
	return translate(err)
}

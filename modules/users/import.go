package users

import (
	"database/sql"
	"encoding/json"

	"github.com/google/uuid"
)

// importSQL creates the users of a batch whose e-mail addresses nobody has, with their credentials, and returns the others
// by their place in the batch: most often there are none. Each column is an array: one round trip and few parameters for
// a thousand users. Both rungs run it.
const importSQL = `
	WITH given AS (
		SELECT * FROM unnest($1::uuid[], $2::text[], $3::bool[], $4::text[], $5::text[], $6::json[], $7::text[])
			WITH ORDINALITY AS g (id, email, email_verified, name, status, metadata, hash, n)
	), created AS (
		INSERT INTO users (id, email, email_verified, name, status, metadata)
		SELECT id, email, email_verified, name, status, metadata FROM given
		ON CONFLICT DO NOTHING RETURNING id
	), credentials AS (
		INSERT INTO user_credentials (user_id, hash)
		SELECT id, hash FROM given JOIN created USING (id) WHERE hash <> ''
	)
	SELECT n, id FROM given WHERE id NOT IN (SELECT id FROM created)`

// knownSQL returns by whom e-mail addresses are taken, by their place in the array.
const knownSQL = `
	SELECT g.n, u.id FROM unnest($1::text[]) WITH ORDINALITY AS g (email, n) JOIN users u ON lower(u.email) = lower(g.email)`

// queryFunc runs a query in a rung's way.
type queryFunc func(statement string, args ...any) (*sql.Rows, error)

// runImport imports a batch in the transaction that query runs its statements in.
func runImport(batch []ImportUser, query queryFunc) ([]Imported, error) {
	results := make([]Imported, len(batch))
	for i := range batch {
		results[i] = Imported{ID: batch[i].User.ID, Created: true}
	}
	created := len(batch)
	err := eachNumbered(query, func(n int, _ uuid.UUID) {
		results[n] = Imported{}
		created--
	}, importSQL,
		column(batch, func(u *ImportUser) uuid.UUID { return u.User.ID }),
		column(batch, func(u *ImportUser) string { return u.User.Email }),
		column(batch, func(u *ImportUser) bool { return u.User.EmailVerified }),
		column(batch, func(u *ImportUser) string { return u.User.Name }),
		column(batch, func(u *ImportUser) string { return string(u.User.Status) }),
		column(batch, func(u *ImportUser) json.RawMessage { return u.User.Metadata }),
		column(batch, func(u *ImportUser) string { return u.Hash }))
	if err != nil || created == len(batch) {
		return results, translate(err)
	}
	err = eachNumbered(query, func(n int, id uuid.UUID) {
		if !results[n].Created {
			results[n].ID = id
		}
	}, knownSQL, column(batch, func(u *ImportUser) string { return u.User.Email }))
	return results, translate(err)
}

// eachNumbered runs a query for numbers, from 1, and ids, and visits its rows with numbers from 0.
func eachNumbered(query queryFunc, visit func(n int, id uuid.UUID), statement string, args ...any) error {
	rows, err := query(statement, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var n int
		var id uuid.UUID
		if err := rows.Scan(&n, &id); err != nil {
			return err
		}
		visit(n-1, id)
	}
	return rows.Err()
}

// column takes one member of each row.
func column[T any](rows []ImportUser, member func(*ImportUser) T) []T {
	values := make([]T, len(rows))
	for i := range rows {
		values[i] = member(&rows[i])
	}
	return values
}

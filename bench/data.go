//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/strata-accounts/strata/platform/ids"
)

const password = "correct horse battery staple" // of users that live as long as a benchmark

// seed makes a database with n users, unless the run has it already, and returns its name.
func (m *machine) seed(ctx context.Context, n int) (string, error) {
	name := fmt.Sprintf("seed_%d", n)
	if m.seeded[name] {
		return name, nil
	}
	url, err := m.database(ctx, name, "")
	if err != nil {
		return "", err
	}
	if err := m.migrate(ctx, url); err != nil {
		return "", err
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	start, i := time.Now().Add(-time.Duration(n)*time.Second), 0
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"users"}, []string{"id", "email", "name", "metadata", "created_at", "updated_at"},
		pgx.CopyFromFunc(func() ([]any, error) {
			if i == n {
				return nil, nil
			}
			i++
			at := start.Add(time.Duration(i) * time.Second)
			return []any{
				ids.New(), fmt.Sprintf("user-%07d@example.com", i), fmt.Sprintf("User Number %07d", i),
				json.RawMessage(`{"plan":"team","seat":17}`), at, at,
			}, nil
		}))
	if err == nil {
		_, err = conn.Exec(ctx, "VACUUM (ANALYZE) users")
	}
	m.seeded[name] = err == nil
	return name, err
}

// copySeed makes a database of its own with n users.
func (m *machine) copySeed(ctx context.Context, n int) (string, error) {
	seed, err := m.seed(ctx, n)
	if err != nil {
		return "", err
	}
	m.names++
	return m.database(ctx, fmt.Sprintf("copy_%d", m.names), seed)
}

// fresh starts a server on a database of its own with n users, and returns both.
func (m *machine) fresh(ctx context.Context, n int, settings map[string]string) (*process, string, error) {
	database, err := m.copySeed(ctx, n)
	if err != nil {
		return nil, "", err
	}
	s, err := m.strata(database, settings)
	return s, database, err
}

// userIDs returns the TypeIDs of the first n users.
func userIDs(ctx context.Context, database string, n int) ([]string, error) {
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, `SELECT id FROM users ORDER BY created_at LIMIT $1`, n)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		var id uuid.UUID
		err := row.Scan(&id)
		return ids.Format("user", id), err
	})
}

// givePasswords gives the first n users the password. It is hashed once, by the server.
func givePasswords(ctx context.Context, s *process, database string, n int) error {
	if _, err := s.call(ctx, http.MethodPost, "/v1/users", rootKey,
		map[string]string{"email": "first@bench.example", "password": password}); err != nil {
		return err
	}
	return morePasswords(ctx, database, n)
}

// morePasswords gives the first n users the password that somebody has already.
func morePasswords(ctx context.Context, database string, n int) error {
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, `INSERT INTO user_credentials (user_id, hash)
		SELECT u.id, c.hash FROM (SELECT id FROM users ORDER BY created_at LIMIT $1) u, (SELECT hash FROM user_credentials LIMIT 1) c
		ON CONFLICT DO NOTHING`, n)
	return err
}

// signIn gives the first n users sessions, and returns the tokens.
func signIn(ctx context.Context, s *process, database string, n int) ([]string, error) {
	if err := givePasswords(ctx, s, database, n); err != nil {
		return nil, err
	}
	tokens := make([]string, n)
	for i := range tokens {
		data, err := s.call(ctx, http.MethodPost, "/v1/sessions", "", credentials(i+1))
		if err != nil {
			return nil, err
		}
		var answer struct{ Token string }
		if err := json.Unmarshal(data, &answer); err != nil {
			return nil, err
		}
		if tokens[i] = answer.Token; answer.Token == "" {
			return nil, errors.New("no token in the answer to a sign-in")
		}
	}
	return tokens, nil
}

// credentials are those of the n-th user.
func credentials(n int) map[string]string {
	return map[string]string{"email": fmt.Sprintf("user-%07d@example.com", n), "password": password}
}

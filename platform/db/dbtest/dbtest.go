//go:build unix

// Package dbtest gives tests real services: databases on a PostgreSQL that all test packages share, and Redis servers.
//
// Nothing has to be set up. The first test that asks starts a PostgreSQL of its own, without durability, which ends by
// itself when no test process has used it for a while; every test gets a database of its own, cloned from a template
// that has the migrations it names. What is missing on the machine is installed, or fails the test; nothing is skipped.
package dbtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/strata-accounts/strata/platform/db"
)

const setupTimeout = 2 * time.Minute // for one database, on a busy machine whose PostgreSQL may have to be installed

// Open returns an empty database with the migrations applied, on a pool of at most 20 connections. Both end with the
// test.
func Open(t testing.TB, migrations ...db.Migration) *db.DB {
	t.Helper()
	return open(t, URL(t, migrations...))
}

func open(t testing.TB, databaseURL string) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), poolConfig(databaseURL))
	if err != nil {
		t.Fatalf("open the test database: %v", err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close the test database: %v", err)
		}
	})
	return d
}

// poolConfig has bounds that a slow machine under the race detector does not reach.
func poolConfig(databaseURL string) db.Config {
	return db.Config{
		URL: databaseURL, MaxOpen: 20, MaxIdle: 5, MaxLifetime: time.Hour, MaxIdleTime: time.Minute,
		AcquireTimeout: 30 * time.Second, TxTimeout: 30 * time.Second,
	}
}

// URL returns the address of an empty database with the migrations applied, for tests that open it themselves, several
// times, or with other limits. The database is dropped soon after the test, whoever is still connected.
func URL(t testing.TB, migrations ...db.Migration) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), setupTimeout)
	defer cancel()
	server, err := sharedServer()
	if err != nil {
		t.Fatalf("start PostgreSQL for tests: %v", err)
	}
	template, err := server.template(ctx, migrations)
	if err != nil {
		t.Fatalf("prepare the template database: %v", err)
	}
	name := "test_" + strings.ToLower(rand.Text())
	if err := server.exec(ctx, fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s%s", name, template, server.strategy)); err != nil {
		t.Fatalf("create the test database: %v", err)
	}
	t.Cleanup(func() { go server.drop(name) }) // PostgreSQL waits a tenth of a second for connections to end; no test has to
	return server.url(name)
}

// A server is the PostgreSQL that this process's tests share with those of other processes.
type server struct {
	member   membership
	base     url.URL // of any of its databases
	admin    *sql.DB
	strategy string // of CREATE DATABASE

	mu        sync.Mutex
	templates map[string]bool // known to exist
}

// sharedServer connects to the shared PostgreSQL once per process.
var sharedServer = sync.OnceValues(func() (*server, error) {
	member, err := join()
	if err != nil {
		return nil, err
	}
	base, err := url.Parse(member.serverURL)
	if err != nil {
		return nil, err
	}
	s := &server{member: member, base: *base, templates: map[string]bool{}}
	if s.admin, err = sql.Open("pgx", s.url("postgres")); err != nil {
		return nil, err
	}
	s.admin.SetMaxOpenConns(8)
	return s, s.chooseStrategy()
})

// chooseStrategy has the files of templates copied, where PostgreSQL would write every page to its log instead: from
// version 15, which is when it learnt to be told.
func (s *server) chooseStrategy() error {
	var versioned bool
	err := s.admin.QueryRow("SELECT current_setting('server_version_num')::int >= 150000").Scan(&versioned) //nolint:noctx // local
	if versioned {
		s.strategy = " STRATEGY FILE_COPY"
	}
	return err
}

func (s *server) url(name string) string {
	u := s.base
	u.Path = "/" + name
	return u.String()
}

func (s *server) exec(ctx context.Context, statement string) error {
	_, err := s.admin.ExecContext(ctx, statement)
	return err
}

// drop removes a test's database. What it leaves goes with the server.
func (s *server) drop(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	_ = s.exec(ctx, fmt.Sprintf("DROP DATABASE %s WITH (FORCE)", name))
}

// template returns the name of the database that has exactly these migrations, which it creates where no test of any
// process has yet. It is named after their contents, so that changed migrations get another.
func (s *server) template(ctx context.Context, migrations []db.Migration) (string, error) {
	sum, err := fingerprint(migrations)
	if err != nil {
		return "", err
	}
	name := "template_" + hex.EncodeToString(sum[:12])
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.templates[name] {
		return name, nil
	}
	// Other processes wait here; a connection holds the lock, and so ends it when this process dies.
	conn, err := s.admin.Conn(ctx)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	key := int64(binary.BigEndian.Uint64(sum[:8])) //nolint:gosec // any 64 bits do
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", key); err != nil {
		return "", err
	}
	defer func() { _, _ = conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", key) }()
	var exists bool
	err = conn.QueryRowContext(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists)
	if err == nil && !exists {
		err = s.createTemplate(ctx, name, migrations)
	}
	s.templates[name] = err == nil
	return name, err
}

// createTemplate gives the database its name when it is complete: one that a killed process left unfinished is not
// taken for a template.
func (s *server) createTemplate(ctx context.Context, name string, migrations []db.Migration) error {
	unfinished := name + "_unfinished"
	for _, statement := range []string{
		fmt.Sprintf("DROP DATABASE IF EXISTS %s WITH (FORCE)", unfinished),
		fmt.Sprintf("CREATE DATABASE %s", unfinished),
	} {
		if err := s.exec(ctx, statement); err != nil {
			return err
		}
	}
	if err := s.migrate(ctx, unfinished, migrations); err != nil {
		return err
	}
	return s.exec(ctx, fmt.Sprintf("ALTER DATABASE %s RENAME TO %s", unfinished, name))
}

func (s *server) migrate(ctx context.Context, name string, migrations []db.Migration) error {
	if len(migrations) == 0 {
		return nil
	}
	d, err := db.Open(ctx, poolConfig(s.url(name)))
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return db.Migrate(ctx, d, slog.New(slog.DiscardHandler), migrations...)
}

// fingerprint hashes the migrations' modules, file names and contents, in order.
func fingerprint(migrations []db.Migration) ([]byte, error) {
	sum := sha256.New()
	for _, m := range migrations {
		_, _ = fmt.Fprintf(sum, "module %q\n", m.Module) // a hash never fails
		err := fs.WalkDir(m.FS, ".", func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			content, err := fs.ReadFile(m.FS, path)
			_, _ = fmt.Fprintf(sum, "file %q %d\n%s\n", path, len(content), content)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read the migrations of %s: %w", m.Module, err)
		}
	}
	return sum.Sum(nil), nil
}

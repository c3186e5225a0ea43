//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/strata-accounts/strata/platform/db/embedded"
)

// rootKey is the API key with all scopes of every server here.
const rootKey = "sk_root_of_the_benchmark_0123456789abcdef"

// postgresSettings are those of a small server, with everything on that durability needs.
var postgresSettings = map[string]string{
	"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
	"shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "15min", "max_connections": "200",
}

// machine is what a run stands on: the built server, PostgreSQL, Redis, and a directory for all of them.
type machine struct {
	dir      string
	root     string // of the repository
	program  string
	postgres *embedded.Server
	redis    *process
	names    int             // given so far
	seeded   map[string]bool // databases
}

func newMachine(ctx context.Context) (_ *machine, err error) {
	m := &machine{seeded: map[string]bool{}}
	if m.dir, err = os.MkdirTemp("", "strata-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	if err := os.Chmod(m.dir, 0o711); err != nil { //nolint:gosec // PostgreSQL may run as another user
		return nil, err
	}
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return nil, fmt.Errorf("find the repository: %w", err)
	}
	m.root, m.program = strings.TrimSpace(string(root)), filepath.Join(m.dir, "strata")
	build := exec.CommandContext(ctx, "make", "build", "PROGRAM="+m.program) // as users do
	build.Dir = m.root
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the server: %w\n%s", err, out)
	}
	m.postgres, err = embedded.Start(ctx, embedded.Config{StateDir: filepath.Join(m.dir, "postgres"), Settings: postgresSettings})
	if err != nil {
		return nil, err
	}
	return m, m.startRedis()
}

func (m *machine) close() {
	if m.redis != nil {
		m.redis.stop()
	}
	if m.postgres != nil {
		_ = m.postgres.Stop(context.Background())
	}
	_ = os.RemoveAll(m.dir)
}

// startRedis starts a Redis that is a cache and no more: it keeps nothing on disk.
func (m *machine) startRedis() error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	m.redis, err = start(m.dir, "redis", os.Environ(), "redis-server",
		"--bind", host, "--port", port, "--dir", m.dir, "--save", "", "--appendonly", "no")
	if err != nil {
		return err
	}
	m.redis.addr = addr
	return m.redis.await(func() bool {
		conn, err := net.Dial("tcp", addr) //nolint:noctx // local
		return err == nil && conn.Close() == nil
	})
}

// databaseURL is the address of a database of the PostgreSQL.
func (m *machine) databaseURL(name string) string {
	u, err := url.Parse(m.postgres.URL())
	if err != nil {
		panic(err) // embedded made it
	}
	u.Path = "/" + name
	return u.String()
}

// database makes a database, as a copy of another unless from is empty.
func (m *machine) database(ctx context.Context, name, from string) (string, error) {
	conn, err := pgx.Connect(ctx, m.databaseURL("postgres"))
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	if from == "" {
		from = "template1"
	}
	_, err = conn.Exec(ctx, fmt.Sprintf(`DROP DATABASE IF EXISTS %[1]q WITH (FORCE)`, name))
	if err == nil {
		_, err = conn.Exec(ctx, fmt.Sprintf(`CREATE DATABASE %q TEMPLATE %q`, name, from))
	}
	return m.databaseURL(name), err
}

// environment is what a server runs with: the production profile, on the given database. Differences from it: no
// delay at the end, and a limit on sign-ins that the benchmark's single address does not reach.
func (m *machine) environment(database string, settings map[string]string) []string {
	all := map[string]string{
		"STRATA_CONFIG": filepath.Join(m.root, "configs", "production.yaml"),
		"DATABASE_URL":  database, "REDIS_URL": "redis://" + m.redis.addr + "/0", "STRATA_ROOT_KEY": rootKey,
		"STRATA_STATE_DIR": m.dir, "STRATA_SERVER__DRAIN_DELAY": "0s", "STRATA_LIMITS__SIGN_IN": "1000000/1s",
	}
	maps.Copy(all, settings)
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "STRATA_") || strings.HasPrefix(v, "DATABASE_URL=") || strings.HasPrefix(v, "REDIS_URL=")
	})
	for name, value := range all {
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// migrate brings a database's tables up to date.
func (m *machine) migrate(ctx context.Context, database string) error {
	migrate := exec.CommandContext(ctx, m.program, "migrate")
	migrate.Env = m.environment(database, nil)
	if out, err := migrate.CombinedOutput(); err != nil {
		return fmt.Errorf("migrate: %w\n%s", err, out)
	}
	return nil
}

// strata starts the server on a database, and returns when it is ready.
func (m *machine) strata(database string, settings map[string]string) (*process, error) {
	addr, aerr := freeAddr()
	admin, merr := freeAddr()
	if err := errors.Join(aerr, merr); err != nil {
		return nil, err
	}
	m.names++
	name := fmt.Sprintf("strata-%d", m.names)
	own := map[string]string{"STRATA_ADDR": addr, "STRATA_ADMIN_ADDR": admin, "STRATA_REDIS__KEY_PREFIX": name}
	maps.Copy(own, settings)
	p, err := start(m.dir, name, m.environment(database, own), m.program)
	if err != nil {
		return nil, err
	}
	p.addr, p.admin = addr, admin
	if err := p.await(func() bool { return answers("http://" + admin + "/readyz") }); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// ceiling starts the bare handlers, with a body to answer from memory and a database for those that use one.
func (m *machine) ceiling(body []byte, database string) (*process, error) {
	addr, aerr := freeAddr()
	admin, merr := freeAddr()
	self, serr := os.Executable()
	if err := errors.Join(aerr, merr, serr); err != nil {
		return nil, err
	}
	m.names++
	name := fmt.Sprintf("ceiling-%d", m.names)
	cfg := ceilingConfig{Addr: addr, Admin: admin, Body: filepath.Join(m.dir, name+".json"), Database: database}
	if err := os.WriteFile(cfg.Body, body, 0o600); err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	p, err := start(m.dir, name, append(os.Environ(), ceilingVariable+"="+string(encoded)), self)
	if err != nil {
		return nil, err
	}
	p.addr, p.admin = addr, admin
	if err := p.await(func() bool { return answers("http://" + addr + "/memory") }); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// call makes one call with the root key, or another credential, and returns the answer's body.
func (p *process) call(ctx context.Context, method, path, credential string, body any) ([]byte, error) {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+p.addr+path, content)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+credential)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s %s", method, path, res.Status, answer)
	}
	return answer, err
}

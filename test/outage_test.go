//go:build unix

package test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/strata-accounts/strata/internal/servertest"
)

// TestDatabaseOutage cuts a server off from PostgreSQL: what it cannot know it does not answer, neither with a yes from a
// cache nor with a no. When the database is back, so is the server.
func TestDatabaseOutage(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	line := d.divert()
	d.env = append(d.env, "STRATA_DATABASE__ACQUIRE_TIMEOUT=1s")
	s := d.start()
	ada := s.signUp()
	session := s.signIn(ada)
	session.wantLive(t)

	line.cut()
	time.Sleep(1500 * time.Millisecond) // longer than a cache may answer without the database
	session.Do("GET", "/v1/sessions/current", nil).Want(http.StatusServiceUnavailable)
	s.Do("POST", "/v1/sessions", credentials(ada.email, ada.password)).Want(http.StatusServiceUnavailable)
	s.root.Do("POST", "/v1/users", credentials("new."+ada.email, ada.password)).Want(http.StatusServiceUnavailable)
	s.root.Do("GET", "/v1/users", nil).Want(http.StatusServiceUnavailable)
	if status, _, err := servertest.Get(t.Context(), s.readyz); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("a server without a database calls itself ready: %d, %v", status, err)
	}

	line.mend()
	s.awaitReady()
	session.wantLive(t)
	s.signIn(ada).wantLive(t)
}

// A line to the database that can be cut.
type line struct {
	t        *testing.T
	upstream string // socket
	listener net.Listener

	mu    sync.Mutex
	down  bool
	conns []net.Conn
}

// divert leads the deployment to its database over a line.
func (d *deployment) divert() *line {
	d.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		d.t.Fatal(err)
	}
	l := &line{t: d.t, listener: listener}
	d.t.Cleanup(func() { _ = listener.Close() })
	for i, v := range d.env {
		if name, value, _ := strings.Cut(v, "="); name == "DATABASE_URL" {
			d.env[i] = name + "=" + l.leadTo(value)
		}
	}
	go l.serve()
	return l
}

// leadTo notes where the database is, and returns its address over the line.
func (l *line) leadTo(databaseURL string) string {
	l.t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		l.t.Fatal(err)
	}
	query := u.Query()
	l.upstream = filepath.Join(query.Get("host"), ".s.PGSQL.5432")
	query.Del("host")
	u.RawQuery, u.Host = query.Encode(), l.listener.Addr().String()
	return u.String()
}

func (l *line) serve() {
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			return // the test is over
		}
		go l.connect(conn)
	}
}

func (l *line) connect(conn net.Conn) {
	upstream, err := net.Dial("unix", l.upstream)
	if err != nil {
		_ = conn.Close()
		return
	}
	l.mu.Lock()
	l.conns = append(l.conns, conn, upstream)
	if l.down {
		_ = errors.Join(conn.Close(), upstream.Close())
	}
	l.mu.Unlock()
	go func() {
		_, _ = io.Copy(upstream, conn)
		_ = upstream.Close()
	}()
	_, _ = io.Copy(conn, upstream)
	_ = conn.Close()
}

func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for _, conn := range l.conns {
		_ = conn.Close()
	}
	l.conns = nil
}

func (l *line) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}

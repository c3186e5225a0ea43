//go:build unix

package embedded

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the database/sql driver "pgx"
)

// serverSettings are the defaults of a private server under extra. Statements and values never reach the log: messages
// of level ERROR, their statements and their DETAIL lines, which quote rows, are left out.
func serverSettings(socketDir string, extra map[string]string) map[string]string {
	settings := map[string]string{
		"listen_addresses":        "",
		"unix_socket_directories": socketDir,
		"unix_socket_permissions": "0700",
		"max_connections":         "100",
		"log_line_prefix":         "",
		"log_min_messages":        "log",
		"log_min_error_statement": "panic",
		"log_error_verbosity":     "terse",
		"log_checkpoints":         "off",
		"lc_messages":             "C",
		"timezone":                "UTC",
		"log_timezone":            "UTC",
	}
	maps.Copy(settings, extra)
	return settings
}

func (s *Server) url(name string) string { return urlOf(s.socket.path, name) }

// RunningURL returns the address of the server that another process runs on this state directory, if one does.
func RunningURL(stateDir string) string {
	return urlOf(filepath.Join(stateDir, socketLink), database)
}

func urlOf(socketDir, name string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User(role),
		Path:     "/" + name,
		RawQuery: url.Values{"host": {socketDir}}.Encode(),
	}
	return u.String()
}

// awaitReady returns when the server accepts connections: when line 8 of postmaster.pid, which the server rewrites as
// it starts, says so. Line 1 tells this server's file from one that a killed predecessor left.
func (s *Server) awaitReady(ctx context.Context, p *process) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if pidFile := readPIDFile(s.cluster.dir); pidFile.pid == p.cmd.Process.Pid && pidFile.status == "ready" {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("PostgreSQL ended while starting (%s): %s", p.cmd.ProcessState, s.output.lastLine())
		case <-ctx.Done():
			return fmt.Errorf("wait for PostgreSQL to start: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// pidFile is what matters of postmaster.pid.
type pidFile struct {
	pid    int    // line 1
	status string // line 8: starting, ready, stopping
}

func readPIDFile(dataDir string) pidFile {
	content, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return pidFile{}
	}
	lines := strings.Split(string(content), "\n")
	lines = append(lines, make([]string, 8)...) // a file that is being written has fewer
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 0 {
		return pidFile{}
	}
	return pidFile{pid: pid, status: strings.TrimSpace(lines[7])}
}

// createDatabase makes the database on the first start, and on the next one when the first did not get that far.
func createDatabase(ctx context.Context, adminURL string) (err error) {
	admin, err := sql.Open("pgx", adminURL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, admin.Close()) }()
	var exists bool
	err = admin.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, database).Scan(&exists)
	if err != nil || exists {
		return err
	}
	_, err = admin.ExecContext(ctx, "CREATE DATABASE "+database)
	return err
}

// output passes the server's messages on to the log, line by line, and keeps the one that explains a failed start.
type output struct {
	log *slog.Logger

	mu      sync.Mutex
	partial string
	last    string // the last FATAL or PANIC, or else the last line
}

func newOutput(log *slog.Logger) *output { return &output{log: log} }

// Write takes a piece of the server's output, in lines or not. It never fails.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := o.partial + string(p)
	complete := strings.LastIndexByte(text, '\n') + 1
	o.partial = text[complete:]
	lines := bufio.NewScanner(strings.NewReader(text[:complete]))
	for lines.Scan() {
		o.line(lines.Text())
	}
	return len(p), nil
}

func (o *output) line(line string) {
	level, grave := slog.LevelDebug, strings.HasPrefix(line, "FATAL") || strings.HasPrefix(line, "PANIC")
	if grave {
		level = slog.LevelWarn
	}
	if grave || !strings.HasPrefix(o.last, "FATAL") {
		o.last = line
	}
	o.log.Log(context.Background(), level, "postgres: "+line)
}

func (o *output) lastLine() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

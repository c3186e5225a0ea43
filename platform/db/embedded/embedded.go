//go:build unix

// Package embedded supervises a private PostgreSQL server: for `serve` without DATABASE_URL, and for tests.
//
// The server listens on a Unix socket in a private directory and on no network address. Its data lies in a pg<major>
// folder of the state directory, is readable by ordinary PostgreSQL tools of that version, and is never deleted here.
// The server ends with the process that started it; data survives kill -9 of either.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/strata-accounts/strata/platform/db/internal/childproc"
	"github.com/strata-accounts/strata/platform/db/internal/filelock"
)

const (
	role     = "strata" // superuser of the private cluster
	database = "strata"

	stopFast      = 20 * time.Second // a fast shutdown writes a checkpoint; beyond this something hangs
	stopImmediate = 5 * time.Second  // then without one: the next start recovers from the log
	pollInterval  = 10 * time.Millisecond
)

// Config says where a server keeps its data and how it differs from the defaults.
type Config struct {
	StateDir string            // parent of the data folder, created where absent; empty for DefaultStateDir
	Settings map[string]string // PostgreSQL settings on top of the defaults, such as "fsync": "off"
	Log      *slog.Logger      // the server's own messages too, which never hold statements or values; nil for none
}

// A Server is a running PostgreSQL that this process supervises.
type Server struct {
	cmd    *exec.Cmd
	dir    string // data directory
	socket socketDir
	lock   *filelock.Lock
	output *output
	done   chan struct{} // closed when the process has ended
	stop   sync.Once
}

// Start finds or installs PostgreSQL, creates the cluster on first use, recovers it after a crash, and returns when
// the server accepts connections and has the database "strata". Recovery takes as long as it takes: ctx bounds it.
//
// Errors are one line and say what to do: PostgreSQL missing and not installable, a state directory that another server
// uses or that the server's user cannot reach, data of a version that is not installed.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.StateDir == "" {
		cfg.StateDir = DefaultStateDir()
	}
	stateDir, err := filepath.Abs(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	cfg.StateDir = stateDir
	if err := makeStateDir(cfg.StateDir); err != nil {
		return nil, err
	}
	lock, err := filelock.Try(filepath.Join(cfg.StateDir, "postgres.lock"))
	if held := (*filelock.HeldError)(nil); errors.As(err, &held) {
		return nil, fmt.Errorf("another server (process %s) already runs on the state directory %s; "+
			"stop it, or choose another directory with STRATA_STATE_DIR", held.PID, cfg.StateDir)
	} else if err != nil {
		return nil, err
	}
	s, err := start(ctx, cfg, lock)
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	return s, nil
}

func start(ctx context.Context, cfg Config, lock *filelock.Lock) (*Server, error) {
	installed, err := findOrInstall(ctx, cfg.Log)
	if err != nil {
		return nil, err
	}
	c, err := openCluster(ctx, cfg, installed)
	if err != nil {
		return nil, err
	}
	socket, err := makeSocketDir(cfg.StateDir, c.owner)
	if err != nil {
		return nil, err
	}
	s := &Server{dir: c.dir, socket: socket, lock: lock, output: newOutput(cfg.Log), done: make(chan struct{})}
	if err := s.launch(c, cfg.Settings); err != nil {
		return nil, errors.Join(err, socket.remove())
	}
	if err := s.awaitReady(ctx); err != nil {
		return nil, errors.Join(err, s.kill())
	}
	if err := createDatabase(ctx, s.url("postgres")); err != nil {
		return nil, errors.Join(err, s.kill())
	}
	cfg.Log.InfoContext(ctx, "PostgreSQL is ready", "version", c.version, "data", c.dir, "pid", s.cmd.Process.Pid)
	return s, nil
}

// URL is the postgres:// address of the server's "strata" database, for a role that may do everything.
func (s *Server) URL() string { return s.url(database) }

// PID is the process id of the server's first process, the postmaster.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Done is closed when the server has ended, by Stop or by itself.
func (s *Server) Done() <-chan struct{} { return s.done }

// Stop ends the server: open transactions are rolled back and everything committed is written to its place. Where that
// takes more than 20 s, or when ctx ends, the server is ended at once, and recovers at the next start. Further calls
// wait for the first and return nil.
func (s *Server) Stop(ctx context.Context) (err error) {
	s.stop.Do(func() { err = s.shutdown(ctx) })
	return err
}

func (s *Server) shutdown(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.lock.Unlock()) }()
	fast, cancel := context.WithTimeout(ctx, stopFast)
	defer cancel()
	s.signal(syscall.SIGINT)
	select {
	case <-s.done:
		return s.socket.remove()
	case <-fast.Done():
		return errors.Join(fmt.Errorf("PostgreSQL did not stop in time and was ended at once: %w", fast.Err()), s.kill())
	}
}

// kill ends the server without a checkpoint.
func (s *Server) kill() error {
	s.signal(syscall.SIGQUIT)
	select {
	case <-s.done:
	case <-time.After(stopImmediate):
		s.signal(syscall.SIGKILL)
		<-s.done
	}
	return s.socket.remove()
}

func (s *Server) signal(sig syscall.Signal) { _ = s.cmd.Process.Signal(sig) }

func (s *Server) launch(c *cluster, settings map[string]string) error {
	args := []string{"-D", c.dir}
	for name, value := range serverSettings(s.socket.path, settings) {
		args = append(args, "-c", name+"="+value)
	}
	s.cmd = c.owner.command(context.Background(), c.bin("postgres"), args...)
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	s.cmd.WaitDelay = stopImmediate // a backend that outlives the postmaster keeps the pipe open
	if err := childproc.Start(s.cmd, syscall.SIGINT); err != nil {
		return fmt.Errorf("start %s: %w", c.bin("postgres"), err)
	}
	go func() {
		_ = s.cmd.Wait() // how it ended is in its ProcessState
		close(s.done)
	}()
	return nil
}

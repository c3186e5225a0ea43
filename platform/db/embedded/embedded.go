//go:build unix

// Package embedded supervises a private PostgreSQL server: for `serve` without DATABASE_URL, and for tests.
//
// The server listens on a Unix socket in a private directory and on no network address. Its data lies in a pg<major>
// folder of the state directory, is readable by ordinary PostgreSQL tools of that version, and is never deleted here.
// The server ends with the process that started it, and is started again where it dies; data survives kill -9 of either.
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

	"github.com/strata-accounts/strata/internal/childproc"
	"github.com/strata-accounts/strata/platform/db/internal/filelock"
)

const (
	role     = "strata" // superuser of the private cluster
	database = "strata"

	stopFast      = 20 * time.Second // a fast shutdown writes a checkpoint; beyond this something hangs
	stopImmediate = 5 * time.Second  // then without one: the next start recovers from the log
	pollInterval  = 10 * time.Millisecond

	restartFor   = 30 * time.Second // before a server that does not start again is given up
	restartPause = 100 * time.Millisecond
)

// Config says where a server keeps its data and how it differs from the defaults.
type Config struct {
	StateDir string            // parent of the data folder, created where absent; empty for DefaultStateDir
	Settings map[string]string // PostgreSQL settings on top of the defaults, such as "fsync": "off"
	Log      *slog.Logger      // the server's own messages too, which never hold statements or values; nil for none
}

// A Server is a PostgreSQL that this process supervises: one that dies is started again.
type Server struct {
	cluster  *cluster
	settings map[string]string
	log      *slog.Logger
	socket   socketDir
	lock     *filelock.Lock
	output   *output
	done     chan struct{} // closed when it has ended for good
	stop     sync.Once

	mu       sync.Mutex
	process  *process
	stopping bool // nothing is launched any more
}

// A process is one run of the server.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has; how is in its ProcessState
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
	s := &Server{
		cluster: c, settings: cfg.Settings, log: cfg.Log, socket: socket, lock: lock, output: newOutput(cfg.Log), done: make(chan struct{}),
	}
	p, err := s.launch()
	if err != nil {
		return nil, errors.Join(err, socket.remove())
	}
	if err = s.awaitReady(ctx, p); err == nil {
		err = createDatabase(ctx, s.url("postgres"))
	}
	if err != nil {
		s.kill(p.ended)
		return nil, errors.Join(err, socket.remove())
	}
	go s.supervise()
	cfg.Log.InfoContext(ctx, "PostgreSQL is ready", "version", c.version, "data", c.dir, "pid", s.PID())
	return s, nil
}

// URL is the postgres:// address of the server's "strata" database, for a role that may do everything.
func (s *Server) URL() string { return s.url(database) }

// PID is the process id of the server's first process, the postmaster. Another one has another.
func (s *Server) PID() int { return s.running().cmd.Process.Pid }

// Done is closed when the server has ended for good: by Stop, or because it could not be started again.
func (s *Server) Done() <-chan struct{} { return s.done }

// Stop ends the server: open transactions are rolled back and everything committed is written to its place. Where that
// takes more than 20 s, or when ctx ends, the server is ended at once, and recovers at the next start. Further calls
// wait for the first and return nil.
func (s *Server) Stop(ctx context.Context) (err error) {
	s.stop.Do(func() { err = s.shutdown(ctx) })
	return err
}

func (s *Server) shutdown(ctx context.Context) (err error) {
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	fast, cancel := context.WithTimeout(ctx, stopFast)
	defer cancel()
	s.signal(syscall.SIGINT)
	select {
	case <-s.done:
	case <-fast.Done():
		err = fmt.Errorf("PostgreSQL did not stop in time and was ended at once: %w", fast.Err())
		s.kill(s.done)
	}
	return errors.Join(err, s.socket.remove(), s.lock.Unlock())
}

// kill ends the server without a checkpoint, and waits until ended is closed.
func (s *Server) kill(ended <-chan struct{}) {
	s.signal(syscall.SIGQUIT)
	select {
	case <-ended:
	case <-time.After(stopImmediate):
		s.signal(syscall.SIGKILL)
		<-ended
	}
}

func (s *Server) signal(sig syscall.Signal) { _ = s.running().cmd.Process.Signal(sig) }

func (s *Server) running() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}

// errStopping says that Stop has been called.
var errStopping = errors.New("PostgreSQL is being stopped")

func (s *Server) launch() (*process, error) {
	args := []string{"-D", s.cluster.dir}
	for name, value := range serverSettings(s.socket.path, s.settings) {
		args = append(args, "-c", name+"="+value)
	}
	p := &process{cmd: s.cluster.owner.command(context.Background(), s.cluster.bin("postgres"), args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = s.output, s.output
	p.cmd.WaitDelay = stopImmediate // a backend that outlives the postmaster keeps the pipe open
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return nil, errStopping
	}
	if err := childproc.Start(p.cmd, syscall.SIGINT); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.cluster.bin("postgres"), err)
	}
	s.process = p
	go func() {
		_ = p.cmd.Wait() // how it ended is in its ProcessState
		close(p.ended)
	}()
	return p, nil
}

// supervise starts the server again whenever it ends by itself: where its first process was killed, by the system for
// want of memory for instance. (Where one of its other processes dies, PostgreSQL itself begins anew.)
func (s *Server) supervise() {
	defer close(s.done)
	for {
		p := s.running()
		<-p.ended
		s.mu.Lock()
		stopping := s.stopping
		s.mu.Unlock()
		if stopping {
			return
		}
		s.log.Error("PostgreSQL has ended by itself and is started again", "status", p.cmd.ProcessState.String())
		if err := s.restart(); errors.Is(err, errStopping) {
			return
		} else if err != nil {
			s.log.Error("PostgreSQL could not be started again", "error", err)
			return
		}
	}
}

// restart tries for restartFor: processes of the dead server that have not noticed yet stand in the way of a new one.
func (s *Server) restart() error {
	ctx, cancel := context.WithTimeout(context.Background(), restartFor)
	defer cancel()
	for {
		p, err := s.launch()
		if err == nil {
			err = s.awaitReady(context.Background(), p) // recovery takes as long as it takes
		}
		if err == nil {
			s.log.Info("PostgreSQL is ready again", "pid", s.PID())
			return nil
		}
		if errors.Is(err, errStopping) || ctx.Err() != nil {
			return err
		}
		time.Sleep(restartPause)
	}
}

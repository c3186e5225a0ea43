//go:build unix

package dbtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/strata-accounts/strata/platform/db/embedded"
	"github.com/strata-accounts/strata/platform/db/internal/filelock"
)

// The shared PostgreSQL is kept by a process of its own, the keeper: the test binary that came first starts itself a
// second time, detached, with keeperVariable set. Each test process holds a connection to the keeper's socket as long
// as it lives, however it ends. The keeper greets it with the server's URL, and stops the server and itself when
// nobody has been connected for idleTimeout.
const (
	keeperVariable = "STRATA_DBTEST_KEEPER" // its value is the keeper's directory
	statePrefix    = "state-"               // of a keeper's data directory in it
	idleTimeout    = 30 * time.Second       // bridges the gap between two packages, and between two runs
	startTimeout   = 5 * time.Minute        // PostgreSQL may have to be installed
)

// init turns a process that was started as the keeper into one, before it runs any test.
func init() {
	if dir := os.Getenv(keeperVariable); dir != "" {
		if err := keep(dir); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// A membership keeps the shared server alive as long as the process that holds it.
type membership struct {
	conn      net.Conn
	serverURL string
}

// join connects to the keeper, which it starts where none runs.
func join() (m membership, err error) {
	dir, err := keeperDir()
	if err != nil {
		return m, err
	}
	if m, err := greet(dir); err == nil {
		return m, nil
	}
	lock, err := filelock.Wait(filepath.Join(dir, "start.lock")) // one process starts it, the others wait
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	if m, err := greet(dir); err == nil {
		return m, nil
	}
	died, err := spawnKeeper(dir)
	if err != nil {
		return m, err
	}
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if m, err := greet(dir); err == nil {
			return m, nil
		}
		select {
		case <-died:
			return m, errors.New(lastLine(logFile(dir)))
		default:
		}
	}
	return m, fmt.Errorf("no server after %s; see %s", startTimeout, logFile(dir))
}

func greet(dir string) (m membership, err error) {
	conn, err := net.Dial("unix", socketFile(dir)) //nolint:noctx // a local socket answers at once or not at all
	if err != nil {
		return m, err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return m, errors.Join(err, conn.Close())
	}
	return membership{conn: conn, serverURL: strings.TrimSpace(line)}, nil
}

// spawnKeeper starts this binary as the keeper. The channel is closed when it ends.
func spawnKeeper(dir string) (<-chan struct{}, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// `go test` waits for whoever has a test's output open, so the keeper writes elsewhere.
	output, err := os.Create(logFile(dir))
	if err != nil {
		return nil, err
	}
	defer func() { _ = output.Close() }() // the child has its own
	cmd := exec.Command(self)             //nolint:noctx // outlives this process
	cmd.Env = append(os.Environ(), keeperVariable+"="+dir)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	died := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(died)
	}()
	return died, nil
}

// keep runs PostgreSQL for the test processes that connect, until none has been there for idleTimeout.
func keep(dir string) error {
	lock, err := filelock.Wait(filepath.Join(dir, "keeper.lock")) // a former keeper is about to end
	if err != nil {
		return err
	}
	defer func() { _ = lock.Unlock() }()
	removeStates(dir) // of keepers that were killed
	stateDir, err := os.MkdirTemp(dir, statePrefix)
	if err != nil {
		return err
	}
	defer removeStates(dir)
	if err := os.Chmod(stateDir, 0o711); err != nil { //nolint:gosec // PostgreSQL may run as another user
		return err
	}
	if err := os.Setenv("TMPDIR", stateDir); err != nil { // for the server's socket to be removed with it
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	pg, err := embedded.Start(ctx, embedded.Config{StateDir: stateDir, Settings: volatile, Log: log})
	if err != nil {
		return err
	}
	defer func() { _ = pg.Stop(context.Background()) }()
	_ = os.Remove(socketFile(dir))
	listener, err := net.Listen("unix", socketFile(dir)) //nolint:noctx // for good
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	return serve(listener, pg)
}

// volatile trades durability, which no test of this server needs, for speed.
var volatile = map[string]string{
	"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
	"wal_level": "minimal", "max_wal_senders": "0", "max_wal_size": "1GB", // its files may be in memory
	"shared_buffers": "256MB", "autovacuum": "off",
	"max_connections": "500", // for all packages that run at once
}

// serve greets and counts test processes. It returns when there has been none for idleTimeout, or PostgreSQL ended.
func serve(listener net.Listener, pg *embedded.Server) error {
	arrived, left := make(chan net.Conn), make(chan struct{})
	go accept(listener, arrived)
	idle := time.NewTimer(idleTimeout)
	for clients := 0; ; {
		select {
		case conn := <-arrived:
			clients++
			idle.Stop()
			go func() {
				attend(conn, pg.URL())
				left <- struct{}{}
			}()
		case <-left:
			if clients--; clients == 0 {
				idle.Reset(idleTimeout)
			}
		case <-idle.C:
			return nil
		case <-pg.Done():
			return errors.New("PostgreSQL ended by itself")
		}
	}
}

func accept(listener net.Listener, arrived chan<- net.Conn) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return // closed: the keeper ends
		}
		arrived <- conn
	}
}

// attend greets a test process and returns when it has ended.
func attend(conn net.Conn, serverURL string) {
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprintln(conn, serverURL); err == nil {
		_, _ = conn.Read(make([]byte, 1)) // test processes never write: this is the end of one
	}
}

// keeperDir is this user's directory for the keeper, in memory where there is room for it and TMPDIR names no other
// place: databases come and go several times faster there. In a folder that everyone can write to, it must be our own.
func keeperDir() (string, error) {
	parent := os.TempDir()
	if memory := memoryDir(); memory != "" && os.Getenv("TMPDIR") == "" {
		parent = memory
	}
	dir := filepath.Join(parent, "strata-test-"+strconv.Itoa(os.Geteuid()))
	if len(dir) > 80 { // too long for a socket's path
		dir = filepath.Join("/tmp", filepath.Base(dir))
	}
	mode := os.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = 0o711 // PostgreSQL runs as another user
	}
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !info.IsDir() || !ok || int(stat.Uid) != os.Geteuid() {
		return "", fmt.Errorf("%s is not a directory of this user: remove it, or set TMPDIR", dir)
	}
	return dir, os.Chmod(dir, mode)
}

// removeStates deletes the keepers' data, as far as the server of a killed one lets it: the next keeper tries again.
func removeStates(dir string) {
	states, _ := filepath.Glob(filepath.Join(dir, statePrefix+"*")) // the pattern is well-formed
	for _, state := range states {
		_ = os.RemoveAll(state)
	}
}

func socketFile(dir string) string { return filepath.Join(dir, "keeper.sock") }
func logFile(dir string) string    { return filepath.Join(dir, "keeper.log") }

func lastLine(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.TrimPrefix(lines[len(lines)-1], "error: ")
}

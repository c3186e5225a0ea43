//go:build unix

package embedded_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-accounts/strata/platform/db/embedded"
)

// supervisorVariable makes this test binary start a server on the directory it names, say so, and wait to be killed.
const supervisorVariable = "STRATA_TEST_SUPERVISE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(supervisorVariable); dir != "" {
		server, err := embedded.Start(context.Background(), embedded.Config{StateDir: dir})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(server.URL())
		select {}
	}
	os.Exit(m.Run())
}

func TestDataOutlivesTheServer(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	server := start(t, dir)
	write(t, server.URL(), "first")
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(socketDir(t, server.URL())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's directory is left behind: %v", err)
	}
	if running(server.PID()) {
		t.Error("the server still runs after Stop")
	}
	server = start(t, dir)
	if link, err := os.Readlink(filepath.Join(dir, "socket")); err != nil || link != socketDir(t, server.URL()) {
		t.Errorf("the link to the socket's directory leads to %q, %v", link, err)
	}
	if got := read(t, server.URL()); got != "first" {
		t.Errorf("after a restart the table holds %q, want %q", got, "first")
	}
}

func TestRecoversWhenPostgresIsKilled(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	server := start(t, dir)
	write(t, server.URL(), "committed")
	killed := server.PID()
	if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	pool, deadline := open(t, server.URL()), time.Now().Add(time.Minute)
	for server.PID() == killed || pool.PingContext(t.Context()) != nil {
		if time.Now().After(deadline) {
			t.Fatal("the server is not started again")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got := read(t, server.URL()); got != "committed" {
		t.Errorf("after the recovery the table holds %q, want %q", got, "committed")
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if pid := server.PID(); running(pid) {
		t.Errorf("process %d still runs after Stop", pid)
	}
}

func TestRecoversWhenTheSupervisorIsKilled(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	supervisor, address := supervise(t, dir)
	write(t, address, "committed")
	if err := supervisor.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = supervisor.Wait() // killed
	server := start(t, dir)
	if got := read(t, server.URL()); got != "committed" {
		t.Errorf("after the recovery the table holds %q, want %q", got, "committed")
	}
	if _, err := os.Stat(socketDir(t, address)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the killed server's socket directory is left behind: %v", err)
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	start(t, dir)
	_, err := embedded.Start(t.Context(), embedded.Config{StateDir: dir})
	want := fmt.Sprintf("another server (process %d) already runs on the state directory %s", os.Getpid(), dir)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a second server on the same directory: %v, want %q", err, want)
	}
}

// A crash in the middle of the first initialisation leaves a part of a cluster under another name.
func TestUnfinishedClusterIsReplaced(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	unfinished := filepath.Join(dir, "pg.init-123")
	if err := os.MkdirAll(filepath.Join(unfinished, "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, start(t, dir).URL(), "works")
	if _, err := os.Stat(unfinished); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the unfinished cluster is left behind: %v", err)
	}
}

// After a crash of a container, the process that has the server's number is likely another one, of the same user.
func TestStalePIDFileOfALivingProcess(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	server := start(t, dir)
	write(t, server.URL(), "committed")
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	clusters, err := filepath.Glob(filepath.Join(dir, "pg*", "PG_VERSION"))
	if err != nil || len(clusters) != 1 {
		t.Fatalf("clusters: %q, %v", clusters, err)
	}
	cluster := filepath.Dir(clusters[0])
	info, err := os.Stat(cluster)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t) //nolint:errcheck // it is one on every Unix
	other := exec.Command("sleep", "600")
	if os.Geteuid() == 0 {
		other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Process.Kill(); _ = other.Wait() })
	stale := filepath.Join(cluster, "postmaster.pid")
	content := fmt.Sprintf("%d\n%s\n1\n5432\n/nowhere\n\n  1 1\nready   \n", other.Process.Pid, cluster)
	if err := os.WriteFile(stale, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(stale, int(owner.Uid), int(owner.Gid)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, start(t, dir).URL()); got != "committed" {
		t.Errorf("the table holds %q, want %q", got, "committed")
	}
	if !running(other.Process.Pid) {
		t.Error("the other process was ended")
	}
}

func TestDataOfAnotherVersionStopsTheStart(t *testing.T) {
	dir := stateDir(t)
	if err := os.MkdirAll(filepath.Join(dir, "pg9"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := embedded.Start(t.Context(), embedded.Config{StateDir: dir})
	if err == nil || !strings.Contains(err.Error(), "pg9 was written by another version of PostgreSQL") {
		t.Errorf("start beside another version's data: %v", err)
	}
}

func TestUnreachableStateDirIsNamed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root runs PostgreSQL as another user")
	}
	closed := filepath.Join(stateDir(t), "closed")
	if err := os.MkdirAll(filepath.Join(closed, "state"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := embedded.Start(t.Context(), embedded.Config{StateDir: filepath.Join(closed, "state")})
	if err == nil || !strings.Contains(err.Error(), closed+" may not be entered") {
		t.Errorf("a state directory under a closed folder: %v", err)
	}
}

func TestInstallSaysWhatIsMissing(t *testing.T) {
	for _, test := range []struct {
		name     string
		programs map[string]string // on a PATH of their own
		services []string
		want     string
	}{
		{"no package manager", nil, []string{"gcc", "make"}, "missing: gcc make; install with this system's package manager"},
		{
			"not allowed",
			map[string]string{"apt-get": "exit 1", "id": "echo 1000"},
			[]string{"gcc"},
			"missing: gcc; install with: sudo apt-get install gcc libc6-dev",
		},
		{
			"not possible",
			map[string]string{"apk": "exit 1", "id": "echo 0"},
			[]string{"make"},
			"missing: make; this failed: sudo apk add make",
		},
		{"present", map[string]string{"gcc": "exit 0"}, []string{"gcc"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := t.TempDir()
			for _, tool := range []string{"tr", "rm"} {
				program, err := exec.LookPath(tool)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(program, filepath.Join(path, tool)); err != nil {
					t.Fatal(err)
				}
			}
			for name, body := range test.programs {
				if err := os.WriteFile(filepath.Join(path, name), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", path)
			err := embedded.Install(t.Context(), slog.New(slog.DiscardHandler), test.services...)
			if got := fmt.Sprint(err); got != test.want && (test.want != "" || err != nil) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// stateDir returns a directory that PostgreSQL's user can reach, which those of the testing package are not for root.
func stateDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "strata-embedded-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func start(t *testing.T, dir string) *embedded.Server {
	t.Helper()
	server, err := embedded.Start(t.Context(), embedded.Config{StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	return server
}

// supervise starts a server in a process of its own.
func supervise(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), supervisorVariable+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(url)
}

func write(t *testing.T, url, text string) {
	t.Helper()
	pool := open(t, url)
	for _, statement := range []string{"CREATE TABLE kept (body text)", "INSERT INTO kept VALUES ('" + text + "')"} {
		if _, err := pool.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, url string) (text string) {
	t.Helper()
	if err := open(t, url).QueryRowContext(t.Context(), "SELECT body FROM kept").Scan(&text); err != nil {
		t.Fatal(err)
	}
	return text
}

func open(t *testing.T, url string) *sql.DB {
	t.Helper()
	pool, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close() })
	return pool
}

func socketDir(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("host")
}

func running(pid int) bool { return syscall.Kill(pid, 0) == nil }

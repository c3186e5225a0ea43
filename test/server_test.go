//go:build unix

// Package test holds Strata to its promises from outside: it builds the server, runs it as a process of its own on a
// real PostgreSQL and Redis, and talks to it over HTTP alone. Every answer is held against the OpenAPI document that
// the process gives, and every log against the secrets that went through it.
package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/strata-accounts/strata/platform/db/dbtest"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

// rootKey is the API key with all scopes of every server here.
const rootKey = "sk_root_of_the_black_box_tests_0123456789"

const (
	startTimeout = 60 * time.Second // migrations included, on a busy machine under the race detector
	stopTimeout  = 40 * time.Second // longer than the server gives requests to finish
)

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := program(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// program builds the server once per run.
var program = sync.OnceValues(func() (string, error) {
	if err := readSources(); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "strata-blackbox-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "strata")
	args := []string{"build", "-o", path}
	if raceDetector {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "../cmd/api")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the server: %w\n%s", err, out)
	}
	return path, nil
})

// readSources looks at every file that the server is made of. `go test` notes what a test looks at, and so knows when a
// passed one must run again: the program that this package builds is none of its imports.
func readSources() error {
	for _, dir := range []string{"../cmd", "../configs", "../modules", "../platform", "../go.mod"} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// A deployment is what the instances of one installation share: a database, a state directory and settings.
type deployment struct {
	t   *testing.T
	env []string

	mu      sync.Mutex
	secrets []string
}

// deploy prepares an installation with an empty database. Settings are environment variables, name=value.
func deploy(t *testing.T, settings ...string) *deployment {
	t.Helper()
	d := &deployment{t: t, env: append(cleanEnvironment(),
		"DATABASE_URL="+dbtest.URL(t), "STRATA_STATE_DIR="+t.TempDir(), "STRATA_ROOT_KEY="+rootKey,
		"STRATA_LOG__LEVEL=debug", "STRATA_LOG__FORMAT=json",
		"STRATA_LIMITS__SIGN_IN=1000000/1s", "STRATA_LIMITS__CONFIRM=1000000/1s", "STRATA_SESSIONS__ACCOUNT_LIMIT=1000000/1s",
		"STRATA_DATABASE__ACQUIRE_TIMEOUT=30s", "STRATA_USERS__HASH_WAIT=1m", // the machine may be busy
	)}
	d.env = append(d.env, settings...)
	d.secret(rootKey)
	return d
}

// cleanEnvironment is this process's environment without what configures a server.
func cleanEnvironment() []string {
	var env []string
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "STRATA_") && name != "DATABASE_URL" && name != "REDIS_URL" {
			env = append(env, v)
		}
	}
	return env
}

// secret notes a value that must never appear in a log, and returns it.
func (d *deployment) secret(value string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.secrets = append(d.secrets, value)
	return value
}

// A server is one running instance.
type server struct {
	*webtest.Client // without a credential
	root            *webtest.Client

	deployment *deployment
	t          *testing.T
	url        string
	readyz     string
	cmd        *exec.Cmd
	log        string // file
	exited     chan struct{}
}

// start runs an instance until the test ends, and returns when it is ready. Settings are on top of the deployment's.
func (d *deployment) start(settings ...string) *server {
	d.t.Helper()
	path, err := program()
	if err != nil {
		d.t.Fatal(err)
	}
	addr, adminAddr := freeAddr(d.t), freeAddr(d.t)
	s := &server{
		deployment: d, t: d.t, url: "http://" + addr, readyz: "http://" + adminAddr + "/readyz", exited: make(chan struct{}),
		log: filepath.Join(d.t.TempDir(), "server.log"),
	}
	output, err := os.Create(s.log)
	if err != nil {
		d.t.Fatal(err)
	}
	defer output.Close() // the process has its own
	s.cmd = exec.Command(path)
	s.cmd.Env = append(append(append([]string{}, d.env...), settings...), "STRATA_ADDR="+addr, "STRATA_ADMIN_ADDR="+adminAddr)
	s.cmd.Stdout, s.cmd.Stderr = output, output
	if err := s.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() {
		_ = s.cmd.Wait() // its outcome is in ProcessState
		close(s.exited)
	}()
	d.t.Cleanup(s.stop)
	s.awaitReady()
	s.Client = webtest.Dial(d.t, s.url)
	s.root = s.As(rootKey)
	return s
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *server) awaitReady() {
	s.t.Helper()
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case <-s.exited:
			s.t.Fatalf("the server ended: %s\n%s", s.cmd.ProcessState, s.logTail())
		default:
		}
		if status, err := get(s.t.Context(), s.readyz); err == nil && status == http.StatusOK {
			return
		}
	}
	s.t.Fatalf("the server is not ready after %s\n%s", startTimeout, s.logTail())
}

func get(ctx context.Context, url string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, errors.Join(err, res.Body.Close())
}

// terminate asks the server to end, as an operator or a supervisor does.
func (s *server) terminate() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
}

// stop ends the server unless it has ended, and holds it to a clean end and a log without secrets.
func (s *server) stop() {
	s.t.Helper()
	select {
	case <-s.exited:
		return
	default:
	}
	s.terminate()
	s.awaitEnd()
}

// awaitEnd waits for a terminated server. A data race in it makes its status 66.
func (s *server) awaitEnd() {
	s.t.Helper()
	select {
	case <-s.exited:
	case <-time.After(stopTimeout):
		_ = s.cmd.Process.Kill()
		s.t.Fatalf("the server goes on %s after SIGTERM\n%s", stopTimeout, s.logTail())
	}
	if s.cmd.ProcessState.ExitCode() != 0 {
		s.t.Errorf("the server ended with %s\n%s", s.cmd.ProcessState, s.logTail())
	}
	s.checkLog()
}

// kill ends the server as kill -9 and the kernel do.
func (s *server) kill() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	<-s.exited
	s.checkLog()
}

// checkLog fails the test where a secret is in the log, or where there is no log that could hold one.
func (s *server) checkLog() {
	s.t.Helper()
	log, err := os.ReadFile(s.log)
	if err != nil {
		s.t.Fatal(err)
	}
	if !bytes.Contains(log, []byte(`"/v1/`)) {
		s.t.Errorf("the log does not name a single request\n%s", s.logTail())
	}
	s.deployment.mu.Lock()
	defer s.deployment.mu.Unlock()
	for _, secret := range s.deployment.secrets {
		if i := bytes.Index(log, []byte(secret)); i >= 0 {
			line := log[bytes.LastIndexByte(log[:i], '\n')+1:]
			line, _, _ = bytes.Cut(line, []byte("\n"))
			s.t.Errorf("a secret is in the log: %s", line)
		}
	}
}

func (s *server) logTail() string {
	log, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return "its log ends with:\n" + string(log[max(0, len(log)-4096):])
}

//go:build unix

// Package test holds Strata to its promises from outside: it builds the server, runs it as a process of its own on a
// real PostgreSQL and Redis, and talks to it over HTTP alone. Every answer is held against the OpenAPI document that
// the process gives, and every log against the secrets that went through it.
package test

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/strata-accounts/strata/internal/servertest"
	"github.com/strata-accounts/strata/platform/db/dbtest"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

// rootKey is the API key with all scopes of every server here.
const rootKey = "sk_root_of_the_black_box_tests_0123456789"

// stopTimeout is longer than the server gives requests to finish.
const stopTimeout = 40 * time.Second

var program = servertest.NewProgram("..")

func TestMain(m *testing.M) {
	code := m.Run()
	program.Remove()
	os.Exit(code)
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
	d := &deployment{t: t, env: append(servertest.Environment(),
		"DATABASE_URL="+dbtest.URL(t), "STRATA_STATE_DIR="+filepath.Join(t.TempDir(), "new"), "STRATA_ROOT_KEY="+rootKey,
		"STRATA_LOG__LEVEL=debug", "STRATA_LOG__FORMAT=json",
		"STRATA_LIMITS__SIGN_IN=1000000/1s", "STRATA_LIMITS__CONFIRM=1000000/1s", "STRATA_SESSIONS__ACCOUNT_LIMIT=1000000/1s",
		"STRATA_DATABASE__ACQUIRE_TIMEOUT=30s", "STRATA_USERS__HASH_WAIT=1m", "STRATA_USERS__HASH_NICENESS=0", // the machine may be busy
	)}
	d.env = append(d.env, settings...)
	d.secret(rootKey)
	return d
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
	*servertest.Process
	root *webtest.Client

	deployment *deployment
	t          *testing.T
	url        string
	readyz     string
}

// start runs an instance until the test ends, and returns when it is ready. Settings are on top of the deployment's.
func (d *deployment) start(settings ...string) *server {
	d.t.Helper()
	addr, adminAddr := servertest.FreeAddr(d.t), servertest.FreeAddr(d.t)
	env := append(append(append([]string{}, d.env...), settings...), "STRATA_ADDR="+addr, "STRATA_ADMIN_ADDR="+adminAddr)
	s := &server{
		Process:    servertest.Start(d.t, program.Path(d.t), env, filepath.Join(d.t.TempDir(), "server.log")),
		deployment: d, t: d.t, url: "http://" + addr, readyz: "http://" + adminAddr + "/readyz",
	}
	d.t.Cleanup(s.stop)
	s.awaitReady()
	s.Client = webtest.Dial(d.t, s.url)
	s.root = s.As(rootKey)
	return s
}

func (s *server) awaitReady() {
	s.t.Helper()
	s.AwaitReady(s.t, s.readyz)
}

// terminate asks the server to end, as an operator or a supervisor does.
func (s *server) terminate() {
	s.t.Helper()
	if err := s.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
}

// stop ends the server unless it has ended, and holds it to a clean end and a log without secrets.
func (s *server) stop() {
	s.t.Helper()
	select {
	case <-s.Exited:
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
	case <-s.Exited:
	case <-time.After(stopTimeout):
		_ = s.Cmd.Process.Kill()
		s.t.Fatalf("the server goes on %s after SIGTERM\n%s", stopTimeout, s.LogTail())
	}
	if s.Cmd.ProcessState.ExitCode() != 0 {
		s.t.Errorf("the server ended with %s\n%s", s.Cmd.ProcessState, s.LogTail())
	}
	s.checkLog()
}

// kill ends the server as kill -9 and the kernel do.
func (s *server) kill() {
	s.t.Helper()
	if err := s.Cmd.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	<-s.Exited
	s.checkLog()
}

// checkLog fails the test where a secret is in the log, or where there is no log that could hold one.
func (s *server) checkLog() {
	s.t.Helper()
	log, err := os.ReadFile(s.Log)
	if err != nil {
		s.t.Fatal(err)
	}
	if !bytes.Contains(log, []byte(`"/v1/`)) {
		s.t.Errorf("the log does not name a single request\n%s", s.LogTail())
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

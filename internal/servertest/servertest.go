//go:build unix

// Package servertest builds the server and runs it as a process of its own, for tests from outside.
package servertest

import (
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
	"testing"
	"time"
)

// StartTimeout is for a start with migrations, on a busy machine under the race detector.
const StartTimeout = 60 * time.Second

// A Program is the server with build tags, built when it is first needed.
type Program struct {
	root  string // of the repository, from the tests' folder
	tags  string
	build sync.Once
	path  string
	err   error
}

// NewProgram returns the program whose sources are at root, a path from the folder of the tests.
func NewProgram(root string, tags ...string) *Program {
	return &Program{root: root, tags: strings.Join(tags, ",")}
}

// Path returns where the program is, and builds it before, under the race detector where the tests run under it.
func (p *Program) Path(t testing.TB) string {
	t.Helper()
	p.build.Do(func() { p.err = p.make() })
	if p.err != nil {
		t.Fatal(p.err)
	}
	return p.path
}

// Remove deletes what Path has built.
func (p *Program) Remove() {
	if p.path != "" {
		_ = os.RemoveAll(filepath.Dir(p.path))
	}
}

func (p *Program) make() error {
	if err := p.readSources(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "strata-servertest-")
	if err != nil {
		return err
	}
	p.path = filepath.Join(dir, "strata")
	args := []string{"build", "-tags", p.tags, "-o", p.path}
	if raceDetector {
		args = append(args, "-race")
	}
	out, err := exec.CommandContext(context.Background(), "go", append(args, p.root+"/cmd/api")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the server: %w\n%s", err, out)
	}
	return nil
}

// readSources looks at every file that the server is made of. `go test` notes what a test looks at, and so knows when a
// passed one must run again: such tests import nothing of the server.
func (p *Program) readSources() error {
	for _, dir := range []string{"cmd", "configs", "modules", "platform", "go.mod"} {
		err := filepath.WalkDir(p.root+"/"+dir, func(path string, _ fs.DirEntry, err error) error {
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

// Environment is this process's environment without what configures a server.
func Environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "STRATA_") && name != "DATABASE_URL" && name != "REDIS_URL" {
			env = append(env, v)
		}
	}
	return env
}

// FreeAddr returns an address of the loopback interface that nobody listens on.
func FreeAddr(t testing.TB) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A Process is one run of a program.
type Process struct {
	Cmd    *exec.Cmd
	Log    string        // the file with its output
	Exited chan struct{} // closed when it has ended; how is in Cmd.ProcessState
}

// Start runs the program at path. Its output is appended to the file log.
func Start(t testing.TB, path string, env []string, log string) *Process {
	t.Helper()
	output, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close() // the process has its own
	p := &Process{Cmd: exec.CommandContext(context.WithoutCancel(t.Context()), path), Log: log, Exited: make(chan struct{})}
	p.Cmd.Env, p.Cmd.Stdout, p.Cmd.Stderr = env, output, output
	if err := p.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.Cmd.Wait()
		close(p.Exited)
	}()
	return p
}

// AwaitReady returns when readyz answers with 200.
func (p *Process) AwaitReady(t testing.TB, readyz string) {
	t.Helper()
	for deadline := time.Now().Add(StartTimeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case <-p.Exited:
			t.Fatalf("the server ended: %s\n%s", p.Cmd.ProcessState, p.LogTail())
		default:
		}
		if status, _, err := Get(t.Context(), readyz); err == nil && status == http.StatusOK {
			return
		}
	}
	t.Fatalf("the server is not ready after %s\n%s", StartTimeout, p.LogTail())
}

// Get reads a page, within 5 seconds.
func Get(ctx context.Context, url string) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	body, err = io.ReadAll(res.Body)
	return res.StatusCode, body, errors.Join(err, res.Body.Close())
}

// LogTail returns how the log ends, or why that cannot be read.
func (p *Process) LogTail() string {
	log, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return "its log ends with:\n" + string(log[max(0, len(log)-4096):])
}

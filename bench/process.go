//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
	clockTick    = 10 * time.Millisecond // of /proc/<pid>/stat; Linux has had no other for user space in decades
)

// A process is a server that the benchmark started: Strata, a ceiling, Redis. The kernel kills it when the thread that
// started it ends, which is main's.
type process struct {
	name   string
	cmd    *exec.Cmd
	addr   string // of what is measured
	admin  string // where /metrics is
	output string // file
	exited chan struct{}
}

// start runs a program with its output in a file of dir.
func start(dir, name string, env []string, path string, args ...string) (*process, error) {
	p := &process{name: name, output: filepath.Join(dir, name+".log"), exited: make(chan struct{})}
	out, err := os.OpenFile(p.output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()  // the child has its own
	p.cmd = exec.Command(path, args...) //nolint:noctx // stop ends it
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in its ProcessState
		close(p.exited)
	}()
	return p, nil
}

// await polls ready until it says so.
func (p *process) await(ready func() bool) error {
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended (%s): %s", p.name, p.cmd.ProcessState, p.tail())
		default:
		}
		if ready() {
			return nil
		}
	}
	return fmt.Errorf("%s is not ready after %s: %s", p.name, startTimeout, p.tail())
}

func (p *process) tail() string {
	text, err := os.ReadFile(p.output)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	_ = os.Remove(p.output)
}

// usage is what a process has used since it started, and PostgreSQL meanwhile.
type usage struct {
	cpu, postgres time.Duration
	mallocs       float64
}

// usage reads CPU times from the kernel, and the process' allocations from its metrics.
func (m *machine) usage(p *process) (usage, error) {
	cpu, err := cpuTime(p.cmd.Process.Pid, false)
	if err != nil {
		return usage{}, err
	}
	mallocs, err := p.metric("go_memstats_mallocs_total")
	if err != nil {
		return usage{}, err
	}
	postgres, err := m.postgresTime()
	return usage{cpu, postgres, mallocs}, err
}

// postgresTime is the CPU time of all of PostgreSQL's processes, those that have ended included.
func (m *machine) postgresTime() (time.Duration, error) {
	pid := m.postgres.PID()
	total, err := cpuTime(pid, true)
	if err != nil {
		return 0, err
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	for _, child := range strings.Fields(string(children)) {
		id, err := strconv.Atoi(child)
		if err != nil {
			return 0, err
		}
		if spent, err := cpuTime(id, false); err == nil { // else it has ended in this moment
			total += spent
		}
	}
	return total, nil
}

// cpuTime is the CPU time of a process, and of its children that have ended if they are asked for.
func cpuTime(pid int, withChildren bool) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from the third on
	times := fields[11:13]                                                    // user, system
	if withChildren {
		times = fields[11:15]
	}
	var total time.Duration
	for _, field := range times {
		ticks, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		total += time.Duration(ticks) * clockTick
	}
	return total, nil
}

// metric reads a counter or gauge without labels.
func (p *process) metric(name string) (float64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("%s has no metric %s", p.name, name)
}

// resident is the process' resident memory in bytes.
func (p *process) resident() (int64, error) {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// freeAddr returns an address of the loopback interface that nobody listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // local
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func answers(url string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	return res.Body.Close() == nil && res.StatusCode == http.StatusOK
}

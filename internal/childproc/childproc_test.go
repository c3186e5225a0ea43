//go:build linux

package childproc_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/strata-accounts/strata/internal/childproc"
)

const (
	parentVariable = "STRATA_TEST_PARENT"
	idleVariable   = "STRATA_TEST_IDLE"
)

func TestMain(m *testing.M) {
	if os.Getenv(idleVariable) != "" {
		idle()
	}
	if os.Getenv(parentVariable) == "" {
		os.Exit(m.Run())
	}
	child := exec.Command("sleep", "600")
	child.Stdout = os.Stdout // whose end tells the test that the child has ended
	if err := childproc.Start(child, syscall.SIGKILL); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("started")
	select {}
}

func TestChildEndsWithKilledParent(t *testing.T) {
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), parentVariable+"=1")
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); err != nil || strings.TrimSpace(line) != "started" {
		t.Fatalf("the parent says %q, %v", line, err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := lines.ReadByte(); err == nil {
		t.Error("the child wrote something")
	} // the end of the output: nobody has it open
	_ = parent.Wait() // killed
}

func TestChildLeavesTheTerminalsGroup(t *testing.T) {
	child := exec.Command("sleep", "600")
	if err := childproc.Start(child, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	group, err := syscall.Getpgid(child.Process.Pid)
	if err != nil || group != child.Process.Pid {
		t.Errorf("the child %d is in process group %d, %v", child.Process.Pid, group, err)
	}
}

// idle is a process with more threads before and after it became idle. It ends with its input.
func idle() {
	threads := func() {
		for range 4 {
			started := make(chan struct{})
			go func() {
				runtime.LockOSThread()
				close(started)
				select {}
			}()
			<-started
		}
	}
	threads()
	fmt.Println(childproc.Idle())
	threads()
	fmt.Println("started")
	_, _ = os.Stdin.Read(make([]byte, 1))
	os.Exit(0)
}

// TestIdle finds all threads of such a process, older and newer ones, under the policy that gives way to all others.
func TestIdle(t *testing.T) {
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), idleVariable+"=1")
	in, ierr := child.StdinPipe()
	out, oerr := child.StdoutPipe()
	if err := errors.Join(ierr, oerr, child.Start()); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	for _, want := range []string{"<nil>\n", "started\n"} {
		if line, err := lines.ReadString('\n'); err != nil || line != want {
			t.Fatalf("the child says %q, %v; want %q", line, err, want)
		}
	}
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", child.Process.Pid))
	if err != nil || len(stats) < 8 {
		t.Errorf("%d threads, %v", len(stats), err)
	}
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		const idle = "5"                                                          // SCHED_IDLE
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from the third on; the policy is the 41st
		if got := fields[38]; got != idle {
			t.Errorf("a thread has the policy %s", got)
		}
	}
	if err := errors.Join(in.Close(), child.Wait()); err != nil {
		t.Error(err)
	}
}

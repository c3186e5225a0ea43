//go:build linux

package childproc_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/strata-accounts/strata/internal/childproc"
)

const parentVariable = "STRATA_TEST_PARENT"

func TestMain(m *testing.M) {
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

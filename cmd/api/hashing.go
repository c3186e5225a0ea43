package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/strata-accounts/strata/internal/childproc"
	"github.com/strata-accounts/strata/modules/users"
)

const hashingName = "hash-passwords"

func hashingCommand() *cobra.Command {
	var idle bool
	cmd := &cobra.Command{
		Use: hashingName, Short: "Hash passwords for the server that has started this process", Args: cobra.NoArgs, Hidden: true,
		RunE: func(*cobra.Command, []string) error {
			if idle {
				if err := childproc.Idle(); err != nil {
					return fmt.Errorf("hash when nothing else is to do: %w", err)
				}
			}
			return users.ServeHashing(pipes{os.Stdin, os.Stdout})
		},
	}
	cmd.Flags().BoolVar(&idle, "idle", false, "run only where a core has nothing else to do")
	return cmd
}

// hashingProcesses start those that hash passwords: one that gets only what time is left over, where the system knows such
// a thing, and one of this niceness for when there is none. At niceness 0, hashing is as urgent as anything else.
func hashingProcesses(niceness int) []users.Start {
	urgent := func() (io.ReadWriteCloser, error) { return startHashing(niceness, hashingName) }
	if niceness == 0 || runtime.GOOS != "linux" {
		return []users.Start{urgent}
	}
	return []users.Start{func() (io.ReadWriteCloser, error) { return startHashing(niceness, hashingName, "--idle") }, urgent}
}

// startHashing starts this program once more, to hash passwords, and returns its output and input. The process gets no
// environment, and ends when its input does, which is when this process ends at the latest.
func startHashing(niceness int, arguments ...string) (io.ReadWriteCloser, error) {
	cmd := exec.Command(self(), arguments...) //nolint:noctx // ends with its input
	cmd.Env, cmd.Stderr = []string{}, os.Stderr
	in, ierr := cmd.StdinPipe()
	out, oerr := cmd.StdoutPipe()
	if err := errors.Join(ierr, oerr); err != nil {
		return nil, err
	}
	if err := childproc.Start(cmd, syscall.SIGKILL); err != nil {
		return nil, err
	}
	go func() { _ = cmd.Wait() }() // whoever uses the pipes finds out
	// A group's priority is that of all its threads; a process' is that of its first alone, on Linux. Where it may not be
	// lowered, hashing is at least apart.
	_ = syscall.Setpriority(syscall.PRIO_PGRP, cmd.Process.Pid, niceness)
	return process{pipes{out, in}, cmd.Process}, nil
}

// self is this program, also when another one has taken its place in the file system.
func self() string {
	if runtime.GOOS == "linux" {
		return "/proc/self/exe"
	}
	path, _ := os.Executable() // starting an empty path fails
	return path
}

// pipes are an input and an output as one.
type pipes struct {
	io.Reader
	io.WriteCloser
}

// process is a process' output and input; closing it ends the process, also one that has been stopped.
type process struct {
	pipes
	*os.Process
}

// Close implements io.Closer.
func (p process) Close() error { return errors.Join(p.pipes.Close(), p.Kill()) }

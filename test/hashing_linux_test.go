package test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestPasswordsAreHashedApart looks for the process that hashes: it must have its priority in all its threads, and know
// nothing from its environment. Users do not notice when it dies or freezes, but for the time.
func TestPasswordsAreHashedApart(t *testing.T) {
	const niceness = 7
	s := deploy(t).start(fmt.Sprintf("STRATA_USERS__HASH_NICENESS=%d", niceness))
	ada := s.signUp()
	pid := hashing(t, s.Cmd.Process.Pid)
	if raw, err := syscall.Getpriority(syscall.PRIO_PGRP, pid); err != nil || 20-raw != niceness { // the highest in the group
		t.Errorf("niceness %d, %v; want %d", 20-raw, err, niceness)
	}
	if environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err != nil || len(environment) > 0 {
		t.Errorf("it has an environment of %d bytes, %v", len(environment), err)
	}
	for _, fate := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		if err := syscall.Kill(pid, fate); err != nil {
			t.Fatal(err)
		}
		for range 2 { // without it, and after another was started
			s.Do("POST", "/v1/sessions", credentials(ada.email, ada.password)).Want(http.StatusCreated)
		}
		again := hashing(t, s.Cmd.Process.Pid)
		if again == pid {
			t.Errorf("after %s it was not replaced", fate)
		}
		pid = again
	}
}

// hashing returns the id of the live child of a server that hashes passwords.
func hashing(t *testing.T, server int) int {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", server))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks { // a child belongs to the thread that started it
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", server, task.Name()))
		if err != nil {
			continue // the thread has ended
		}
		for _, child := range strings.Fields(string(children)) {
			arguments, err := os.ReadFile("/proc/" + child + "/cmdline")
			if err == nil && bytes.Contains(arguments, []byte("\x00hash-passwords\x00")) {
				pid, _ := strconv.Atoi(child)
				return pid
			}
		}
	}
	t.Fatal("no process that hashes passwords")
	return 0
}

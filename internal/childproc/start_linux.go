//go:build linux

package childproc

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

type request struct {
	cmd  *exec.Cmd
	done chan error
}

// starter hands commands to the one thread that starts all children. Linux ties the parent-death signal to the thread
// that forked, not to the process: a child of a thread that the Go runtime retires would be signalled at once.
var starter = sync.OnceValue(func() chan<- request {
	requests := make(chan request)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread lives as long as the process
		for r := range requests {
			r.done <- r.cmd.Start()
		}
	}()
	return requests
})

func start(cmd *exec.Cmd, sig syscall.Signal) error {
	cmd.SysProcAttr.Pdeathsig = sig
	r := request{cmd: cmd, done: make(chan error, 1)}
	starter() <- r
	return <-r.done
}

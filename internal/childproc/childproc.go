// Package childproc starts the processes that Strata supervises (PostgreSQL, hashing, Redis in tests), so that a
// terminal's Ctrl-C does not reach them directly and so that, where the system can, they end with their parent.
package childproc

import (
	"os/exec"
	"syscall"
)

// Start starts cmd in a process group of its own. On Linux the kernel sends sig to the child when this process dies in
// any way, kill -9 included; elsewhere a killed parent leaves the child behind, and whoever starts next must cope.
func Start(cmd *exec.Cmd, sig syscall.Signal) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	return start(cmd, sig)
}

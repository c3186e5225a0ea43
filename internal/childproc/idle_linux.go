package childproc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// Idle has the kernel run this process only where a core has nothing else to do, and take the core back as soon as it has
// (SCHED_IDLE, sched(7)). Nothing leads back. Within its control group, that is: other groups have their own share.
func Idle() error {
	done := map[string]bool{}
	for {
		// A thread inherits the policy of the one that starts it. One that was started before that was reached is in the
		// next list.
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		before := len(done)
		for _, task := range tasks {
			if done[task.Name()] {
				continue
			}
			id, err := strconv.Atoi(task.Name())
			if err != nil {
				return err
			}
			if err := makeIdle(id); err != nil && !errors.Is(err, syscall.ESRCH) { // it has ended
				return fmt.Errorf("thread %d: %w", id, err)
			}
			done[task.Name()] = true
		}
		if len(done) == before {
			return nil
		}
	}
}

func makeIdle(thread int) error {
	const schedIdle = 5
	var priority int32                                                                                                             // the only one that the policy has
	_, _, errno := syscall.Syscall(syscall.SYS_SCHED_SETSCHEDULER, uintptr(thread), schedIdle, uintptr(unsafe.Pointer(&priority))) //nolint:gosec // the system call takes an address
	if errno != 0 {
		return errno
	}
	return nil
}

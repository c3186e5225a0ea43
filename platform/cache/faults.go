package cache

import "sync/atomic"

// faults is how the tests slow the protocol down and break it, to see that they would notice. In a program it is empty.
var faults faultInjection

type faultInjection struct{ atomic.Pointer[faultSwitches] }

type faultSwitches struct {
	pause             func(point string) // called between the steps of the slow paths
	deleteAfterCommit bool               // what everyone does: one DEL, nobody waits, and fills are plain SETs
}

// InjectFaults is for test/consistency, whose server is the only one that calls it (see cmd/api/faults.go). Pause is
// called between the protocol's steps; deleteAfterCommit replaces the protocol by a delete after COMMIT.
func InjectFaults(pause func(point string), deleteAfterCommit bool) {
	faults.Store(&faultSwitches{pause: pause, deleteAfterCommit: deleteAfterCommit})
}

func (f *faultInjection) at(point string) {
	if s := f.Load(); s != nil && s.pause != nil {
		s.pause(point)
	}
}

func (f *faultInjection) deleteAfterCommit() bool {
	s := f.Load()
	return s != nil && s.deleteAfterCommit
}

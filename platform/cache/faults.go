package cache

import "sync/atomic"

// faults is how the tests slow the protocol down and break it, to see that they would notice. In a program it is empty.
var faults faultInjection

type faultInjection struct{ atomic.Pointer[faultSwitches] }

type faultSwitches struct {
	pause             func(point string) // called between the steps of the slow paths
	deleteAfterCommit bool               // what everyone does: one DEL, and nobody waits
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

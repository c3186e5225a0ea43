package cache

// faults is how the tests slow the protocol down and break it, to see that they would notice. In a program it is zero.
var faults faultSwitches

type faultSwitches struct {
	pause             func(point string) // called between the steps of the slow paths
	deleteAfterCommit bool               // what everyone does: one DEL, and nobody waits
}

func (f *faultSwitches) at(point string) {
	if f.pause != nil {
		f.pause(point)
	}
}

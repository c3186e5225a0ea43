package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// cores is how many threads of Go run at once by default: those of the machine, or what its container may use.
var cores = runtime.GOMAXPROCS(0)

// addProcessor lets one more thread run than there are cores. Whenever the kernel gives a core to somebody else, such as
// PostgreSQL, the goroutines that wait for the thread which ran there wait on, while the core that becomes free next has
// nothing to do. It leaves alone what the operator has set with GOMAXPROCS. Whatever sizes itself by the cores comes first; limits that
// a container is given later on are not followed any more.
func addProcessor() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(cores + 1)
	}
}

// heapGoal is the size that the heap grows to before garbage is collected. By itself, Go collects when as much has been
// allocated as is in use, which is little while the cache holds little: ten times a second under load, for a tenth of
// the time that a session check takes. With a full cache it is much, and stays resident.
const heapGoal = 62 << 20

// minGCPercent bounds the time that collecting takes where much of that is in use: a quarter of what is in use is
// allocated between two collections.
const minGCPercent = 25

// spaceCollections adjusts the collector after each collection, until the process ends. It leaves alone one that the
// operator has set with GOGC.
func spaceCollections() {
	if os.Getenv("GOGC") != "" {
		return
	}
	type cycle struct{ _ [16]byte } // larger than what the allocator joins with others
	var next func(*cycle)
	next = func(c *cycle) {
		debug.SetGCPercent(gcPercent(heapInUse()))
		runtime.SetFinalizer(c, next) // c is found to be unreachable once more in the next collection
	}
	next(&cycle{})
}

// gcPercent is the GOGC that lets the heap grow to heapGoal where inUse bytes are in use.
func gcPercent(inUse uint64) int {
	if inUse == 0 {
		return 100 // nothing has been collected yet
	}
	room := int64(heapGoal) - int64(inUse)                           //nolint:gosec // no heap is so large
	return int(max(minGCPercent, room*100/int64(max(inUse, 1<<20)))) //nolint:gosec // as above
}

// heapInUse is what the last collection found to be in use.
func heapInUse() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

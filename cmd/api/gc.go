package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// gcInterval is how many bytes are allocated between two garbage collections. Go collects when as much has been
// allocated as is in use, which is little while the cache holds little: ten times a second under load, for a tenth of
// the time that a session check takes. With a full cache it is much, and stays resident: 40 MiB more than with this.
const gcInterval = 32 << 20

// minGCPercent bounds the time that collecting takes where more than 64 MiB are in use: half of that is allocated
// between two collections.
const minGCPercent = 50

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

// gcPercent is the GOGC that lets gcInterval bytes be allocated where inUse are in use.
func gcPercent(inUse uint64) int {
	if inUse == 0 {
		return 100 // nothing has been collected yet
	}
	return int(max(minGCPercent, gcInterval*100/max(inUse, 1<<20))) //nolint:gosec // at most 3,200
}

// heapInUse is what the last collection found to be in use.
func heapInUse() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

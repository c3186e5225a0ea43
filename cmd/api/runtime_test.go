package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestGCPercent(t *testing.T) {
	for inUse, want := range map[uint64]int{0: 100, 1: 6199, 8 << 20: 675, 31 << 20: 100, 40 << 20: 55, 1 << 30: 25} {
		if got := gcPercent(inUse); got != want {
			t.Errorf("with %d bytes in use: %d, want %d", inUse, got, want)
		}
	}
}

// TestCollectionsStaySpaced: each collection sets the distance to the next, not the first one alone.
func TestCollectionsStaySpaced(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	spaceCollections()
	for range 3 {
		debug.SetGCPercent(99)
		for deadline := time.Now().Add(time.Minute); debug.SetGCPercent(99) == 99; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("a collection has not set the distance to the next")
			}
			runtime.GC()
		}
	}
}

// TestAddProcessor: one more than the cores, however often a server is started, unless the operator says how many.
func TestAddProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(cores))
	t.Setenv("GOMAXPROCS", "7")
	addProcessor()
	if got := runtime.GOMAXPROCS(0); got != cores {
		t.Errorf("%d threads for %d cores, against the operator's wish", got, cores)
	}
	t.Setenv("GOMAXPROCS", "")
	addProcessor()
	addProcessor()
	if got := runtime.GOMAXPROCS(0); got != cores+1 {
		t.Errorf("%d threads for %d cores", got, cores)
	}
}

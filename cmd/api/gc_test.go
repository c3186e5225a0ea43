package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestGCPercent(t *testing.T) {
	for inUse, want := range map[uint64]int{0: 100, 1: 3200, 8 << 20: 400, 32 << 20: 100, 48 << 20: 66, 1 << 30: 50} {
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

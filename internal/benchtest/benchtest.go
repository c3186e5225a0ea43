// Package benchtest puts code beside the least that any code could do for the same answer.
package benchtest

import (
	"slices"
	"testing"
	"time"
)

// Pair is what takes turns in a benchmark.
type Pair struct {
	Floor, One func()
	Before     func() // each turn, untimed; may be nil
	Times      int    // in a turn; 0 is 1. What takes less than a microsecond needs more
}

// Run lets the two take turns, so that whatever else the machine does slows both, and reports the medians of both, how
// many times the floor's that is (x-floor), and the allocations of one.
func (p Pair) Run(b *testing.B) {
	b.Helper()
	times := max(p.Times, 1)
	turn := func(f func()) time.Duration {
		if p.Before != nil {
			p.Before()
		}
		start := time.Now()
		for range times {
			f()
		}
		return time.Since(start)
	}
	var floor, one []time.Duration
	for b.Loop() {
		floor, one = append(floor, turn(p.Floor)), append(one, turn(p.One))
	}
	median := func(took []time.Duration) float64 {
		slices.Sort(took)
		return float64(took[len(took)/2]) / float64(times)
	}
	b.ReportMetric(median(one), "ns/op")
	b.ReportMetric(median(floor), "floor-ns/op")
	b.ReportMetric(median(one)/median(floor), "x-floor")
	if p.Before == nil {
		b.ReportMetric(testing.AllocsPerRun(10, p.One), "allocs/op")
	}
}

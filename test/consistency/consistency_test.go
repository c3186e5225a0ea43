//go:build unix

// Package consistency holds the cache to its promise from outside (docs/cache.md): real server processes on one
// PostgreSQL and one Redis, readers and writers over HTTP, writers past Strata, transactions that are rolled back,
// pauses between the protocol's steps, and faults. It counts reads that began after a write was acknowledged and
// returned the state before it, and states that were never committed, and it looks for an order in which each history
// makes sense.
//
// `go test` makes a short run. `make consistency` takes each fault by itself until CONSISTENCY_READS reads of strict
// kinds have been answered in all, and measures hit rates and the price of a write. CONSISTENCY_SEED repeats the
// choices of a run: accounts, operations, faults and their times, pauses and rollbacks. The order in which processes get
// to run stays the machine's.
package consistency

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

const (
	roundTime = 8 * time.Second
	briefTime = 4 * time.Second
	fewReads  = 20_000 // in a round
)

// TestConsistency is the promise: nothing older than what was acknowledged, and nothing that was never committed.
func TestConsistency(t *testing.T) {
	seed := number(t, "CONSISTENCY_SEED", rand.Uint64())
	t.Logf("CONSISTENCY_SEED=%d", seed)
	reads := number(t, "CONSISTENCY_READS", 0)
	if reads == 0 {
		t.Parallel()
		run(t, brief, 0, seed, briefTime, 1)
		return
	}
	var rows table
	for n, f := range faults { // each makes up for those before that were slow
		t.Run(f.name, func(t *testing.T) {
			left := reads - min(reads, rows.strict())
			rows = append(rows, run(t, f, n, seed, roundTime, left/uint64(len(faults)-n)))
		})
	}
	rows.print(t)
	t.Run("hit rate", func(t *testing.T) { testHitRate(t, seed) })
	t.Run("price of a write", testPriceOfAWrite)
}

// TestDeleteAfterCommit shows that the harness can fail. What everyone writes, a delete from Redis after COMMIT and a
// plain SET on the way back, returns stale reads without any fault.
func TestDeleteAfterCommit(t *testing.T) {
	if number(t, "CONSISTENCY_READS", 0) == 0 {
		t.Parallel()
	}
	seed := number(t, "CONSISTENCY_SEED", rand.Uint64())
	t.Logf("CONSISTENCY_SEED=%d", seed)
	const rounds = 30
	w := newWorld(t, injection(seed, "STRATA_FAULTS_DELETE_AFTER_COMMIT=1")...)
	w.warm()
	rng := rand.New(rand.NewPCG(seed, 0))
	count := &counts{}
	for range rounds {
		w.newRound(count).run(rng, func() { time.Sleep(briefTime / 4) })
		if count.stale.Load() > 0 {
			t.Logf("%d of %d reads were stale, by %s at most", count.stale.Load(), count.strict.Load(), time.Duration(count.worst.Load()))
			return
		}
	}
	t.Errorf("no stale read in %d reads: the harness would not notice", count.strict.Load())
}

// run takes a world through a fault, round by round, until so many reads of strict kinds have been answered, or until it
// is clear that the fault lets only few of them be.
func run(t *testing.T, f fault, n int, seed uint64, d time.Duration, reads uint64) *row {
	t.Helper()
	w := newWorld(t, injection(seed)...)
	w.warm()
	r := &row{fault: f.name}
	before := w.tally()
	for round := uint64(0); round == 0 || uint64(r.strict.Load()) < reads && round <= reads/fewReads; round++ {
		rng := rand.New(rand.NewPCG(seed, uint64(n)<<32|round))
		one := w.newRound(&r.counts)
		if f.name != "none" {
			one.boundedGrace = foreignBound
		}
		one.run(rng, func() { f.happen(w, d, rng) })
		if t.Failed() {
			break
		}
	}
	r.hits = w.tally().since(before)
	table{r}.print(t)
	if r.stale.Load() > 0 || r.older.Load() > 0 || r.wrong.Load() > 0 {
		t.Errorf("%d strict and %d bounded reads were older than they may be, by %s at most; %d other violations",
			r.stale.Load(), r.older.Load(), time.Duration(r.worst.Load()), r.wrong.Load())
	}
	if failed := r.refused.Load() + r.lost.Load(); f.ofRedis && failed > 0 {
		t.Errorf("%d reads failed because of Redis", failed)
	}
	return r
}

// injection is what makes the servers slow and fail.
func injection(seed uint64, more ...string) []string {
	return append([]string{
		fmt.Sprintf("STRATA_FAULTS_SEED=%d", seed), "STRATA_FAULTS_PAUSES=0.1", "STRATA_FAULTS_ROLLBACKS=0.15",
	}, more...)
}

// number reads an environment variable.
func number(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(variable)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

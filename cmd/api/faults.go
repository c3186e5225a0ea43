//go:build faults

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/errs"
)

// errInjected answers a request whose transaction was rolled back on purpose. Its client may rely on that.
var errInjected = errs.New(errs.Unavailable, "injected_rollback", "Rolled back on purpose.")

// init makes this the server of test/consistency, the only one that is built with the tag faults. Its environment says
// what goes wrong: STRATA_FAULTS_SEED, STRATA_FAULTS_PAUSES, how often a step is followed by a pause of up to 3 ms (and
// a hundredth as often by one of 0.4 or 1.5 s), STRATA_FAULTS_ROLLBACKS, the share of transactions that is rolled back,
// and STRATA_FAULTS_DELETE_AFTER_COMMIT.
func init() {
	f := &injection{
		pauses: probability("STRATA_FAULTS_PAUSES"), rollbacks: probability("STRATA_FAULTS_ROLLBACKS"),
	}
	seed, _ := strconv.ParseUint(os.Getenv("STRATA_FAULTS_SEED"), 10, 64)
	f.rng = rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // no secret
	plain := os.Getenv("STRATA_FAULTS_DELETE_AFTER_COMMIT") != ""
	fmt.Fprintf(os.Stderr, "faults: seed %d, pauses %g, rollbacks %g, delete after COMMIT %t\n", seed, f.pauses, f.rollbacks, plain)
	cache.InjectFaults(f.pause, plain)
	db.InjectBeforeCommit(f.beforeCommit)
}

func probability(variable string) float64 {
	p, _ := strconv.ParseFloat(os.Getenv(variable), 64)
	return p
}

type injection struct {
	pauses, rollbacks float64

	mu  sync.Mutex
	rng *rand.Rand
}

// pause stalls a step now and then: mostly a little, and rarely for longer than any lease or marker lives.
func (f *injection) pause(string) { time.Sleep(f.draw()) }

func (f *injection) draw() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch p := f.rng.Float64() / f.pauses; { // without pauses infinite
	case p < 0.0025:
		return 1500 * time.Millisecond
	case p < 0.01:
		return 400 * time.Millisecond
	case p < 1:
		return time.Duration(f.rng.IntN(3000)) * time.Microsecond
	}
	return 0
}

// beforeCommit holds up the transactions that have touched the cache, and rolls some back.
func (f *injection) beforeCommit() error {
	f.pause("")
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rng.Float64() < f.rollbacks {
		return errInjected
	}
	return nil
}

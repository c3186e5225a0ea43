//go:build unix

package consistency

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
)

// testHitRate measures how many reads the cache answers while accounts are written, with pauses and rollbacks, but no
// fault.
func testHitRate(t *testing.T, seed uint64) {
	for _, test := range []struct {
		readsPerWrite int64
		least         float64 // percent
	}{{100, 90}, {1000, 99}} {
		w := newWorld(t, injection(seed)...)
		w.warm()
		count := &counts{}
		r := w.newRound(count)
		r.plain, r.pace = true, &pace{every: test.readsPerWrite}
		before := w.tally()
		r.run(rand.New(rand.NewPCG(seed, 0)), func() { time.Sleep(2 * roundTime) })
		rate := w.tally().since(before)
		t.Logf("one write per %d reads: %.2f %% of %d reads from memory", test.readsPerWrite, rate, count.strict.Load()+count.bounded.Load())
		if rate < test.least {
			t.Errorf("one write per %d reads: a hit rate of %.2f %%, want %g at least", test.readsPerWrite, rate, test.least)
		}
	}
}

// testPriceOfAWrite measures, on instances with nothing else to do, what a write costs Redis and its caller.
func testPriceOfAWrite(t *testing.T) {
	const writes, roundTrips, median = 500, 2, "0.002"
	w := newWorld(t)
	w.warm()
	a := newAccount(t, w.db, 0)
	one := w.instances[0]
	c := client{addr: one.addr}
	defer c.close()
	idle := w.callsPerSecond(func() { time.Sleep(3 * time.Second) })
	waits := one.metrics()
	start := time.Now()
	busy := w.callsPerSecond(func() {
		for n := range writes {
			patch := request("PATCH", a.path, rootKey, "", fmt.Sprintf(`{"name":"%d"}`, n))
			if answer, err := c.do(patch, writeTimeout); err != nil || answer.status != 200 {
				t.Fatalf("write: %d, %v: %s", answer.status, err, answer.body)
			}
		}
	})
	each := (busy - idle) * time.Since(start).Seconds() / writes
	after := one.metrics()
	bucket := func(s samples, le string) float64 {
		return s.sum("strata_cache_write_wait_seconds_bucket", `le="`+le+`"`)
	}
	soon := (bucket(after, median) - bucket(waits, median)) / (bucket(after, "+Inf") - bucket(waits, "+Inf"))
	t.Logf("a write makes %.2f calls to Redis, the relay's share included; %.0f %% are acknowledged within 2 ms of COMMIT", each, 100*soon)
	if each > roundTrips {
		t.Errorf("a write makes %.2f calls to Redis, want %d at most", each, roundTrips)
	}
	if soon < 0.5 {
		t.Errorf("only %.0f %% of the writes are acknowledged within 2 ms of COMMIT", 100*soon)
	}
}

// callsPerSecond returns how many scripts Redis runs in a second while something is done. All that the cache asks of
// Redis is a script; the acknowledgements, which nobody waits for an answer to, are published.
func (w *world) callsPerSecond(do func()) float64 {
	w.t.Helper()
	calls := func() (n float64) {
		info, err := w.control.Info(context.Background(), "commandstats").Result()
		if err != nil {
			w.t.Fatal(err)
		}
		for _, command := range []string{"eval", "evalsha"} {
			n += statOf(info, command)
		}
		return n
	}
	before, start := calls(), time.Now()
	do()
	return (calls() - before) / time.Since(start).Seconds()
}

// statOf reads the number of calls from a line such as "cmdstat_evalsha:calls=12,usec=34".
func statOf(info, command string) float64 {
	_, rest, _ := strings.Cut(info, "cmdstat_"+command+":calls=")
	digits, _, _ := strings.Cut(rest, ",")
	n, _ := strconv.ParseFloat(digits, 64) // none: never called
	return n
}

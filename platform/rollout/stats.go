package rollout

import (
	"context"
	"errors"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/strata-accounts/strata/platform/errs"
)

// Latencies are counted in buckets whose bounds grow by an eighth of a power of two, from 64 ns to about 34 s.
const (
	latencyUnit    = 6 // bits: 64 ns
	latencySteps   = 8 // per power of two
	latencyBuckets = latencySteps * 28
)

func latencyBucket(d time.Duration) int {
	v := uint64(max(d, 0)) >> latencyUnit
	if v < latencySteps {
		return int(v)
	}
	shift := bits.Len64(v) - bits.Len64(latencySteps)
	return min(shift*latencySteps+int(v>>shift), latencyBuckets-1) //nolint:gosec // v>>shift is below 16
}

// latencyBound returns what every latency in the bucket stays below.
func latencyBound(bucket int) time.Duration {
	if bucket < latencySteps {
		return time.Duration(bucket+1) << latencyUnit
	}
	shift := bucket/latencySteps - 1
	return time.Duration(bucket%latencySteps+latencySteps+1) << shift << latencyUnit
}

// counters is what a process counts about one module, from its start on.
type counters struct {
	reads, writes                 [paths]operation
	compared, mismatched, dropped atomic.Uint64
	checked, stale                atomic.Uint64             // cache hits
	methods                       map[string]*atomic.Uint64 // compared, by method; the keys never change
}

// operation is the reads, or the writes, of one path.
type operation struct {
	errors  atomic.Uint64
	total   atomic.Int64 // nanoseconds
	latency [latencyBuckets]atomic.Uint64
}

// observe counts one call. That PostgreSQL was away is not held against the path: a restart would move every module back.
func (o *operation) observe(took time.Duration, err error) {
	o.latency[latencyBucket(took)].Add(1)
	o.total.Add(int64(took))
	if failed(err) && errs.From(err).Code != errs.ErrUnavailable.Code {
		o.errors.Add(1)
	}
}

func (o *operation) tally() operationTally {
	t := operationTally{Errors: o.errors.Load(), Latency: map[int]uint64{}}
	for i := range o.latency {
		if n := o.latency[i].Load(); n > 0 {
			t.Latency[i] = n
		}
	}
	return t
}

func newCounters(methods []string) *counters {
	c := &counters{methods: make(map[string]*atomic.Uint64, len(methods))}
	for _, m := range methods {
		c.methods[m] = &atomic.Uint64{}
	}
	return c
}

// compare counts one comparison.
func (c *counters) compare(method string, same bool) {
	c.compared.Add(1)
	if !same {
		c.mismatched.Add(1)
	}
	if n, ok := c.methods[method]; ok {
		n.Add(1)
	}
}

// check counts one cache hit that was compared with PostgreSQL.
func (c *counters) check(stale bool) {
	c.checked.Add(1)
	if stale {
		c.stale.Add(1)
	}
}

// failed reports whether an error is a path's failure, and no answer: that something does not exist is an answer.
func failed(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	kind := errs.KindOf(err)
	return kind == errs.Internal || kind == errs.Unavailable
}

// A tally is what has been counted in some time, by one process or by all.
type tally struct {
	Paths      [paths]pathTally  `json:"paths"`
	Compared   uint64            `json:"compared"`
	Mismatched uint64            `json:"mismatched"`
	Dropped    uint64            `json:"dropped"`
	Checked    uint64            `json:"checked"` // cache hits, against PostgreSQL
	Stale      uint64            `json:"stale"`   // of them
	Methods    map[string]uint64 `json:"methods"`
}

type pathTally struct {
	Reads  operationTally `json:"reads"`
	Writes operationTally `json:"writes"`
}

type operationTally struct {
	Errors  uint64         `json:"errors"`
	Latency map[int]uint64 `json:"latency"` // by bucket; those without calls are left out
}

func (c *counters) tally() tally {
	t := tally{
		Compared: c.compared.Load(), Mismatched: c.mismatched.Load(), Dropped: c.dropped.Load(),
		Checked: c.checked.Load(), Stale: c.stale.Load(), Methods: make(map[string]uint64, len(c.methods)),
	}
	for name, n := range c.methods {
		t.Methods[name] = n.Load()
	}
	for p := range t.Paths {
		t.Paths[p] = pathTally{c.reads[p].tally(), c.writes[p].tally()}
	}
	return t
}

// plus returns the sum.
func (t tally) plus(o tally) tally {
	return t.combine(o, func(a, b uint64) uint64 { return a + b })
}

// minus returns what has been counted since o. What a process counted that is no longer known counts as nothing.
func (t tally) minus(o tally) tally {
	return t.combine(o, func(a, b uint64) uint64 { return a - min(a, b) })
}

// shrunk reports whether less is known than before: an instance that is long gone has been forgotten.
func (t tally) shrunk(before tally) bool {
	for p := range t.Paths {
		if t.Paths[p].calls() < before.Paths[p].calls() {
			return true
		}
	}
	return t.Compared < before.Compared || t.Checked < before.Checked
}

func (t tally) combine(o tally, with func(a, b uint64) uint64) tally {
	sum := tally{
		Compared: with(t.Compared, o.Compared), Mismatched: with(t.Mismatched, o.Mismatched),
		Dropped: with(t.Dropped, o.Dropped), Checked: with(t.Checked, o.Checked), Stale: with(t.Stale, o.Stale),
		Methods: combine(t.Methods, o.Methods, with),
	}
	for p := range sum.Paths {
		sum.Paths[p] = pathTally{
			t.Paths[p].Reads.combine(o.Paths[p].Reads, with), t.Paths[p].Writes.combine(o.Paths[p].Writes, with),
		}
	}
	return sum
}

func (t operationTally) combine(o operationTally, with func(a, b uint64) uint64) operationTally {
	return operationTally{with(t.Errors, o.Errors), combine(t.Latency, o.Latency, with)}
}

func combine[K comparable](a, b map[K]uint64, with func(a, b uint64) uint64) map[K]uint64 {
	sum := make(map[K]uint64, len(a))
	for k := range a {
		sum[k] = with(a[k], b[k])
	}
	for k := range b {
		sum[k] = with(a[k], b[k])
	}
	return sum
}

// calls returns how many calls there were.
func (t operationTally) calls() uint64 {
	var n uint64
	for _, calls := range t.Latency {
		n += calls
	}
	return n
}

// quantile returns the latency that this share of the calls stayed below, 0 without calls.
func (t operationTally) quantile(share float64) time.Duration {
	rank := uint64(share * float64(t.calls()))
	var seen uint64
	for i := range latencyBuckets {
		if seen += t.Latency[i]; seen > rank {
			return latencyBound(i)
		}
	}
	return 0
}

// calls returns how many calls the path answered.
func (p pathTally) calls() uint64 { return p.Reads.calls() + p.Writes.calls() }

// errors returns how many of them failed.
func (p pathTally) errors() uint64 { return p.Reads.Errors + p.Writes.Errors }

// errorRate returns the share of calls that failed.
func (p pathTally) errorRate() float64 {
	if n := p.calls(); n > 0 {
		return float64(p.errors()) / float64(n)
	}
	return 0
}

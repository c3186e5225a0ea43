//go:build unix

package consistency

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

const (
	accounts          = 8
	readersEach       = 5 // of an instance
	writersEach       = 4
	preference        = "consistency" // the one that is written
	reportedPerRound  = 5             // violations; the rest is only counted
	refillEvery       = 200 * time.Millisecond
	probeEvery        = 20 * time.Millisecond
	settleAfterFaults = 700 * time.Millisecond
)

// A round is a few seconds of reading and writing through all instances, on accounts of its own. Its history is complete:
// nothing of it is under way before or after.
type round struct {
	t        *testing.T
	world    *world
	db       *sql.DB
	accounts []*account
	serial   atomic.Int64 // of writes
	pace     *pace        // nil: as fast as they can
	plain    bool         // writers change names alone

	boundedGrace time.Duration // after which a change to a bounded kind binds readers

	count *counts

	mu       sync.Mutex
	reported int
}

// counts are what the table shows.
type counts struct {
	strict, bounded atomic.Int64 // reads that were answered
	stale, older    atomic.Int64 // of those, older than what bound them: strict and bounded
	wrong           atomic.Int64 // never committed, or in no possible order
	unchecked       atomic.Int64 // histories whose check took too long
	refused, lost   atomic.Int64 // reads that were answered with an error, or not at all
	writes, foreign [detected + 1]atomic.Int64
	worst           atomic.Int64 // age of a stale read, ns
	oldest          atomic.Int64 // of a read that was allowed to be: see foreignBound

	cached, fresh latency
}

// latency sums up answers to single requests.
type latency struct{ n, ns atomic.Int64 }

func (l *latency) note(d time.Duration) {
	l.n.Add(1)
	l.ns.Add(int64(d))
}

func (l *latency) mean() time.Duration { return time.Duration(l.ns.Load() / max(1, l.n.Load())) }

func raise(to *atomic.Int64, n int64) {
	old := to.Load()
	for old < n && !to.CompareAndSwap(old, n) {
		old = to.Load()
	}
}

func (w *world) newRound(count *counts) *round {
	r := &round{t: w.t, world: w, db: w.db, count: count}
	for n := range accounts {
		r.accounts = append(r.accounts, newAccount(w.t, w.db, n))
	}
	return r
}

// run reads and writes until the fault is over, and then judges the whole.
func (r *round) run(rng *rand.Rand, fault func()) {
	ctx, cancel := context.WithCancel(r.t.Context())
	var all sync.WaitGroup
	source := func() *rand.Rand { return rand.New(rand.NewPCG(rng.Uint64(), 0)) }
	var addrs []string
	for _, i := range r.world.instances {
		addrs = append(addrs, i.addr)
	}
	for _, addr := range addrs {
		for range readersEach {
			reader := r.newReader(addr, source())
			all.Go(func() { reader.run(ctx) })
		}
		for range writersEach {
			writer := r.newWriter(addrs, source())
			all.Go(func() { writer.run(ctx) })
		}
		prober := r.newReader(addr, source())
		all.Go(func() { prober.probe(ctx) })
	}
	foreign := source()
	if !r.plain {
		all.Go(func() { r.writeForeign(ctx, foreign) })
		all.Go(func() { r.refill(ctx) })
	}
	fault()
	cancel()
	all.Wait()
	r.conclude()
}

func (r *round) refill(ctx context.Context) {
	for ctx.Err() == nil {
		for _, a := range r.accounts {
			if err := a.refill(r.db); err != nil {
				r.violation("make a session: %v", err)
				return
			}
		}
		time.Sleep(refillEvery)
	}
}

// probe compares what an answer takes with what it takes past the cache.
func (r *reader) probe(ctx context.Context) {
	defer r.client.close()
	for ; ctx.Err() == nil; time.Sleep(probeEvery) {
		a := r.accounts[r.rng.IntN(len(r.accounts))]
		for _, q := range []question{{account: a}, {account: a, fresh: true}} {
			q.begin(now())
			answer, err := r.client.do(q.request(), readTimeout)
			if err != nil {
				r.count.lost.Add(1)
				break
			}
			took := time.Duration(now() - q.call)
			if q.fresh {
				r.count.fresh.note(took)
			} else {
				r.count.cached.note(took)
			}
			r.judge(&q, answer)
		}
	}
	for rec, run := range r.runs {
		rec.keep(*run)
	}
}

// conclude looks at the histories when all is over.
func (r *round) conclude() {
	for _, a := range r.accounts {
		for _, rec := range []*record{a.user, a.prefs} {
			if n := rec.phantoms(); n > 0 {
				r.violation("%s: %d states were read and never committed", rec.name, n)
			}
			switch rec.linearizable() {
			case porcupine.Illegal:
				r.violation("%s: there is no order in which its history of %d reads and %d writes makes sense",
					rec.name, len(rec.reads), len(rec.writes))
			case porcupine.Unknown:
				r.count.unchecked.Add(1)
			case porcupine.Ok:
			}
		}
	}
}

func (r *round) stale(q *question, age time.Duration, format string, args ...any) {
	if q.prefs {
		r.count.older.Add(1)
	} else {
		r.count.stale.Add(1)
	}
	raise(&r.count.worst, int64(age))
	r.report(fmt.Sprintf(format, args...) + fmt.Sprintf(", %s after that was binding (read at %s)", age, time.Duration(q.call)))
}

func (r *round) violation(format string, args ...any) {
	r.count.wrong.Add(1)
	r.report(fmt.Sprintf(format, args...))
}

func (r *round) report(message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reported++; r.reported <= reportedPerRound {
		r.t.Log(message)
	}
}

// A pace holds readers and writers to a ratio.
type pace struct {
	reads, writes atomic.Int64
	every         int64 // reads for each write
}

// wait holds a reader that has read until the writers have kept up.
func (p *pace) wait(ctx context.Context) {
	p.reads.Add(inARow)
	for p.reads.Load() > (p.writes.Load()+1)*p.every && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
}

// turn holds a writer until it is time to write.
func (p *pace) turn(ctx context.Context) {
	n := p.writes.Load()
	for (p.reads.Load() < n*p.every || !p.writes.CompareAndSwap(n, n+1)) && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
		n = p.writes.Load()
	}
}

//go:build unix

package consistency

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// foreignBound is how soon a write must be seen that went past Strata, or whose outcome nobody was told; and, under a
// fault, a write to a kind that is bounded.
const foreignBound = time.Second

// An instant is measured from the start of the test: comparable, and cheap to keep by the million.
type instant int64

var origin = time.Now()

func now() instant { return instant(time.Since(origin)) }

// A state of a record is what one write has made of it. Both numbers are in a field of the record, as "v<version>.<write>".
type state struct {
	version int64 // counts the changes
	write   int64 // which of the writes, since several try to make the same version; 0 made the first
}

func (s state) String() string { return fmt.Sprintf("v%d.%d", s.version, s.write) }

// parseState finds the state in an answer, after a marker such as `"name":"`.
func parseState(body []byte, marker string) (s state, ok bool) {
	i := bytes.Index(body, []byte(marker))
	if i < 0 {
		return s, false
	}
	rest := body[i+len(marker):]
	end, dot := bytes.IndexByte(rest, '"'), bytes.IndexByte(rest, '.')
	if end < 0 || dot < 2 || dot > end {
		return s, false
	}
	version, verr := strconv.ParseInt(string(rest[1:dot]), 10, 64)
	write, werr := strconv.ParseInt(string(rest[dot+1:end]), 10, 64)
	return state{version, write}, verr == nil && werr == nil
}

// outcome of a write, as far as the one who tried it knows.
type outcome uint8

const (
	pending  outcome = iota
	applied          // acknowledged
	refused          // If-Match did not hold: the record was in another state
	undone           // rolled back
	unknown          // no answer, or one that leaves it open
	detected         // unknown, until a reader saw it
)

// A write is one attempt to change a record.
type write struct {
	state           // that it makes; a foreign writer learns the version when it has
	foreign    bool // past Strata, and without looking at the state before
	call, done instant
	binding    instant // from when on no read may return the state before; 0: never settled
	outcome    outcome
	seen       bool
}

// A record is a row that is read and written through several instances: what was done to it, and what its readers may
// rely on.
type record struct {
	name string // as it appears in messages

	floor   atomic.Int64 // the least version that a read which begins now may return
	nextDue atomic.Int64 // when the first of due becomes binding

	mu     sync.Mutex
	writes map[int64]*write
	due    []*write // will be binding
	bound  []*write // have been, for the age of what is stale
	newest struct { // that is known to have been committed, and since when
		version int64
		at      instant
	}
	reads []read
}

const never = int64(1) << 62

func newRecord(name string) *record {
	r := &record{name: name, writes: map[int64]*write{0: {state: state{version: 1}, outcome: applied, seen: true}}}
	r.floor.Store(1)
	r.newest.version = 1
	r.nextDue.Store(never)
	return r
}

// least returns the least version that a read which begins now may return.
func (r *record) least(at instant) int64 {
	if int64(at) >= r.nextDue.Load() {
		r.mu.Lock()
		r.settle(at)
		r.mu.Unlock()
	}
	return r.floor.Load()
}

// settle makes binding what is due. r.mu is held.
func (r *record) settle(at instant) {
	next := never
	kept := r.due[:0]
	for _, w := range r.due {
		if w.binding <= at {
			r.bind(w)
			continue
		}
		kept = append(kept, w)
		next = min(next, int64(w.binding))
	}
	r.due = kept
	r.nextDue.Store(next)
}

func (r *record) bind(w *write) {
	r.bound = append(r.bound, w)
	if w.version > r.floor.Load() {
		r.floor.Store(w.version)
	}
}

// try notes a write before it is sent.
func (r *record) try(w *write) *write {
	r.mu.Lock()
	defer r.mu.Unlock()
	w.call = now()
	r.writes[w.write] = w
	return w
}

// end notes what became of a write. It binds readers from now on, or after a grace.
func (r *record) end(w *write, o outcome, version int64, grace time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := now()
	w.done = at
	if o == unknown && w.outcome == detected {
		return
	}
	w.outcome = o
	if o != applied {
		return
	}
	w.version = version
	r.commit(w, at, grace)
}

// commit notes that a write is known to have been committed. r.mu is held.
func (r *record) commit(w *write, at instant, grace time.Duration) {
	if w.version > r.newest.version {
		r.newest.version, r.newest.at = w.version, at
	}
	binding := at + instant(grace)
	if w.binding != 0 && w.binding <= binding {
		return // it will bind sooner than this
	}
	w.binding = binding
	if grace == 0 {
		r.bind(w)
		return
	}
	r.due = append(r.due, w)
	r.nextDue.Store(min(r.nextDue.Load(), int64(w.binding)))
}

// see notes that a reader was answered with a state, and says what is wrong with that. Whatever was read has been
// committed, and so must be visible everywhere soon.
func (r *record) see(s state, at instant) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.writes[s.write]
	switch {
	case w == nil:
		return fmt.Errorf("%s: %s was never written", r.name, s)
	case w.foreign && w.version == 0:
		w.version = s.version
	case w.version != s.version:
		return fmt.Errorf("%s: %s was written as %s", r.name, s, w.state)
	}
	first := !w.seen
	w.seen = true
	switch w.outcome {
	case refused, undone:
		return fmt.Errorf("%s: %s was never committed", r.name, s)
	case unknown:
		w.outcome = detected
	}
	if first && w.binding == 0 {
		r.commit(w, at, foreignBound)
	}
	return nil
}

// age returns for how long, at a moment, a newer version than this one had been binding.
func (r *record) age(version int64, at instant) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	oldest := at
	for _, w := range r.bound {
		if w.version > version {
			oldest = min(oldest, w.binding)
		}
	}
	return time.Duration(at - oldest)
}

// behind returns for how long, at a moment, a newer version than this one had been known to be committed, whether it
// was binding yet or not.
func (r *record) behind(version int64, at instant) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if version >= r.newest.version || r.newest.at > at {
		return 0
	}
	return time.Duration(at - r.newest.at)
}

// phantoms counts the states that were read before they turned out never to have been committed.
func (r *record) phantoms() (n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.writes {
		if w.seen && (w.outcome == refused || w.outcome == undone) {
			n++
		}
	}
	return n
}

// A read is a run of answers that one reader got one after the other, all the same. No state ever comes back, so the
// first and the last of a run say all that it says.
type read struct {
	state       state
	first, last interval
}

type interval struct{ call, done instant }

// keep adds a reader's run to the history.
func (r *record) keep(run read) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads = append(r.reads, run)
}

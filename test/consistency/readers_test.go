//go:build unix

package consistency

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"
)

const (
	inARow      = 8                // requests that a reader sends before it waits for the answers
	readTimeout = 10 * time.Second // longer than any fault lasts
)

// A reader asks one instance, without a rest, for what is being changed.
type reader struct {
	*round
	client client
	rng    *rand.Rand
	runs   map[*record]*read
	sent   [inARow]question
	buffer []byte
}

// A question is a request, and what its answer must not fall behind.
type question struct {
	account *account
	session *session // whose check it is
	prefs   bool
	fresh   bool // past the cache
	call    instant
	least   int64
	dead    bool
}

func (r *round) newReader(addr string, rng *rand.Rand) *reader {
	return &reader{round: r, client: client{addr: addr}, rng: rng, runs: map[*record]*read{}}
}

func (r *reader) run(ctx context.Context) {
	defer r.client.close()
	for ctx.Err() == nil {
		r.buffer = r.buffer[:0]
		for i := range r.sent {
			r.sent[i] = r.pick()
			r.buffer = append(r.buffer, r.sent[i].request()...)
		}
		call := now()
		for i := range r.sent {
			r.sent[i].begin(call)
		}
		if !r.exchange() {
			time.Sleep(10 * time.Millisecond)
		}
		if r.rng.IntN(20) == 0 {
			time.Sleep(time.Duration(r.rng.IntN(3000)) * time.Microsecond)
		}
		if r.pace != nil {
			r.pace.wait(ctx)
		}
	}
	for rec, run := range r.runs {
		rec.keep(*run)
	}
}

// exchange sends the questions and judges the answers. It reports false where the instance is not there.
func (r *reader) exchange() bool {
	err := r.client.send(r.buffer, readTimeout)
	for i := range r.sent {
		var a answer
		if err == nil {
			a, err = r.client.receive(false)
		}
		if err != nil {
			r.client.close()
			r.count.lost.Add(int64(len(r.sent) - i))
			return false
		}
		r.judge(&r.sent[i], a)
	}
	return true
}

// pick chooses what to ask for: mostly sessions, as applications do.
func (r *reader) pick() question {
	a := r.accounts[r.rng.IntN(len(r.accounts))]
	switch n := r.rng.IntN(100); {
	case n < 50:
		return question{account: a, session: a.slots[r.rng.IntN(devices)].Load()}
	case n < 85:
		return question{account: a}
	default:
		return question{account: a, prefs: true}
	}
}

func (q *question) request() []byte {
	switch {
	case q.session != nil:
		return q.session.check
	case q.prefs:
		return q.account.readPrefs
	case q.fresh:
		return q.account.readUserFresh
	}
	return q.account.readUser
}

// record returns the row of which an answer tells, and where in the answer.
func (q *question) record() (*record, string) {
	if q.prefs {
		return q.account.prefs, `"` + preference + `":"`
	}
	return q.account.user, `"name":"`
}

// begin notes, before the question is sent, what its answer must not fall behind.
func (q *question) begin(at instant) {
	q.call = at
	rec, _ := q.record()
	q.least = rec.least(at)
	if q.session != nil {
		dead := q.session.deadFrom.Load()
		q.dead = dead != 0 && instant(dead) <= at
	}
}

// judge holds an answer against what had been acknowledged before the question was sent, and against what was ever
// written.
func (r *reader) judge(q *question, a answer) {
	done := now()
	switch {
	case a.status == http.StatusOK:
		rec, marker := q.record()
		s, ok := parseState(a.body, marker)
		if !ok {
			r.violation("%s: an answer without a state: %.200s", rec.name, a.body)
			return
		}
		r.answered(q)
		if q.session != nil && q.dead {
			r.stale(q, time.Duration(q.call-instant(q.session.deadFrom.Load())), "a session of %s is alive", rec.name)
		}
		r.sight(q, rec, s, done)
	case a.status == http.StatusUnauthorized && q.session != nil:
		r.answered(q)
		if q.session.enders.Load() == 0 {
			r.violation("a session of %s is dead that nobody has ended", q.account.user.name)
		}
		q.session.deadSeen.CompareAndSwap(0, int64(done)) // it may live again, where only its user was suspended
	default:
		r.count.refused.Add(1)
	}
}

func (r *reader) answered(q *question) {
	switch {
	case q.fresh:
	case q.prefs:
		r.count.bounded.Add(1)
	default:
		r.count.strict.Add(1)
	}
}

// sight notes the state of a record that an answer told.
func (r *reader) sight(q *question, rec *record, s state, done instant) {
	if s.version < q.least {
		r.stale(q, rec.age(s.version, q.call), "%s is %s, want at least v%d", rec.name, s, q.least)
	}
	at := interval{q.call, done}
	run := r.runs[rec]
	if run == nil || run.state != s {
		if err := rec.see(s, done); err != nil {
			r.violation("%v", err)
		}
		if run != nil {
			rec.keep(*run)
		}
		run = &read{state: s, first: at}
		r.runs[rec] = run
	}
	run.last = at
	if behind := rec.behind(s.version, q.call); behind > 0 {
		raise(&r.count.oldest, int64(behind))
	}
}

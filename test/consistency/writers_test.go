//go:build unix

package consistency

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

const writeTimeout = 8 * time.Second // longer than the servers give a transaction

// errRollback ends a foreign transaction that is meant to come to nothing.
var errRollback = errors.New("rolled back on purpose")

// A writer changes accounts through all instances, each time through another.
type writer struct {
	*round
	clients []client
	rng     *rand.Rand
}

func (r *round) newWriter(addrs []string, rng *rand.Rand) *writer {
	w := &writer{round: r, rng: rng}
	for _, addr := range addrs {
		w.clients = append(w.clients, client{addr: addr})
	}
	return w
}

func (w *writer) run(ctx context.Context) {
	for ctx.Err() == nil {
		if w.pace != nil {
			w.pace.turn(ctx)
		} else {
			time.Sleep(time.Duration(w.rng.IntN(60)) * time.Millisecond)
		}
		a := w.accounts[w.rng.IntN(len(w.accounts))]
		switch n := w.rng.IntN(100); {
		case n < 50 || w.plain:
			w.change(a, false)
		case n < 55:
			w.change(a, true)
		case n < 75:
			w.changePreference(a)
		case n < 88:
			w.revoke(a)
		case n < 97:
			w.rotate(a)
		default:
			w.settle(a.endAll(), request("DELETE", a.path+"/sessions", rootKey, "", ""))
		}
	}
	for i := range w.clients {
		w.clients[i].close()
	}
}

func (w *writer) client() *client { return &w.clients[w.rng.IntN(len(w.clients))] }

// do makes a write and says what became of it.
func (w *writer) do(request []byte) (answer, outcome) {
	a, err := w.client().do(request, writeTimeout)
	o := unknown
	switch {
	case err != nil:
	case a.status < 300:
		o = applied
	case a.status < 500:
		o = refused
	case bytes.Contains(a.body, []byte(`"injected_rollback"`)):
		o = undone
	}
	w.count.writes[o].Add(1)
	return a, o
}

// settle makes a write that ends sessions.
func (w *writer) settle(e *ending, request []byte) (answer, outcome) {
	a, o := w.do(request)
	e.end(o, 0)
	return a, o
}

// look reads a record as every client does who changes it: the state, and the ETag to change it by.
func (w *writer) look(q question) (a answer, s state, ok bool) {
	q.begin(now())
	a, err := w.client().do(q.request(), readTimeout)
	if err != nil || a.status != http.StatusOK {
		w.count.lost.Add(1)
		return a, s, false
	}
	rec, marker := q.record()
	if s, ok = parseState(a.body, marker); !ok {
		w.violation("%s: an answer without a state: %.200s", rec.name, a.body)
		return a, s, false
	}
	if s.version < q.least {
		w.stale(&q, rec.age(s.version, q.call), "%s is %s, want at least v%d", rec.name, s, q.least)
	}
	done := now()
	if err := rec.see(s, done); err != nil {
		w.violation("%v", err)
	}
	at := interval{q.call, done}
	rec.keep(read{state: s, first: at, last: at})
	return a, s, true
}

// change gives a user another name, in the state that it was read in. It suspends the user where told so; one who is
// suspended is made active again. A suspension ends all sessions.
func (w *writer) change(a *account, suspend bool) {
	found, before, ok := w.look(question{account: a})
	if !ok {
		return
	}
	suspended := bytes.Contains(found.body, []byte(`"status":"suspended"`))
	status := ""
	switch {
	case suspended:
		status = `,"status":"active"`
	case suspend:
		status = `,"status":"suspended"`
	default:
		a.activeAt(before.version)
	}
	next := state{before.version + 1, w.serial.Add(1)}
	patch := request("PATCH", a.path, rootKey, "If-Match: "+found.etag+"\r\n", fmt.Sprintf(`{"name":"%s"%s}`, next, status))
	var e *ending
	if suspend && !suspended {
		e = a.endAll()
		a.suspendedFrom(next.version)
	}
	attempt := a.user.try(&write{state: next})
	_, o := w.do(patch)
	a.user.end(attempt, o, next.version, 0)
	if e != nil {
		e.end(o, 0)
	}
}

func (w *writer) changePreference(a *account) {
	found, before, ok := w.look(question{account: a, prefs: true})
	if !ok {
		return
	}
	next := state{before.version + 1, w.serial.Add(1)}
	patch := request("PATCH", a.path+"/preferences", rootKey, "If-Match: "+found.etag+"\r\n",
		fmt.Sprintf(`{"%s":"%s"}`, preference, next))
	attempt := a.prefs.try(&write{state: next})
	_, o := w.do(patch)
	a.prefs.end(attempt, o, next.version, w.boundedGrace)
}

// pick chooses a session to end, alone with it; nil where that is not possible at the moment.
func (w *writer) pick(a *account) *session {
	s := a.slots[w.rng.IntN(devices)].Load()
	if s.enders.Load() > 0 || !s.using.TryLock() {
		return nil
	}
	return s
}

func (w *writer) revoke(a *account) {
	if s := w.pick(a); s != nil {
		defer s.using.Unlock()
		w.settle(endOne(s), request("DELETE", "/v1/sessions/"+s.id, rootKey, "", ""))
	}
}

// rotate gives a session another token, which ends what was known by the old one.
func (w *writer) rotate(a *account) {
	old := w.pick(a)
	if old == nil {
		return
	}
	defer old.using.Unlock()
	next := a.expect()
	answer, o := w.settle(endOne(old), request("POST", "/v1/sessions/current/rotate", old.token, "", ""))
	_, token, ok := bytes.Cut(answer.body, []byte(`"token":"`))
	token, _, _ = bytes.Cut(token, []byte(`"`))
	if o != applied || !ok {
		return
	}
	next.name(old.id, string(token))
	next.open.Store(true)
	for i := range a.slots { // the old one stays in its place, to be checked
		if s := a.slots[i].Load(); s != old && s.deadFrom.Load() != 0 && a.slots[i].CompareAndSwap(s, next) {
			return
		}
	}
}

// writeForeign changes users and ends sessions past Strata, as psql and older programs do.
func (r *round) writeForeign(ctx context.Context, rng *rand.Rand) {
	for ctx.Err() == nil {
		time.Sleep(time.Duration(rng.IntN(150)) * time.Millisecond)
		a := r.accounts[rng.IntN(len(r.accounts))]
		rollback := rng.IntN(100) < 15
		if rng.IntN(4) > 0 {
			r.changeForeign(a, rollback)
			continue
		}
		s := a.slots[rng.IntN(devices)].Load()
		if s.enders.Load() > 0 || !s.using.TryLock() {
			continue
		}
		e := endOne(s)
		e.end(r.foreign(rollback, func(tx *sql.Tx) error {
			_, err := tx.Exec(`DELETE FROM sessions WHERE cache_id = encode(sha256($1::bytea), 'hex')`, s.token)
			return err
		}), foreignBound)
		s.using.Unlock()
	}
}

func (r *round) changeForeign(a *account, rollback bool) {
	n := r.serial.Add(1)
	attempt := a.user.try(&write{state: state{write: n}, foreign: true})
	var version int64
	o := r.foreign(rollback, func(tx *sql.Tx) error {
		return tx.QueryRow(`UPDATE users SET version = version + 1, name = 'v' || (version + 1) || '.' || $2::bigint
			WHERE id = $1 RETURNING version`, a.id, n).Scan(&version)
	})
	a.user.end(attempt, o, version, foreignBound)
}

// foreign runs a transaction past Strata.
func (r *round) foreign(rollback bool, do func(*sql.Tx) error) outcome {
	o := unknown
	tx, err := r.db.Begin()
	if err == nil {
		if err = do(tx); err == nil && rollback {
			err = errRollback
		}
		switch {
		case err == nil:
			if tx.Commit() == nil {
				o = applied
			}
		case tx.Rollback() == nil:
			o = undone
		}
	}
	r.count.foreign[o].Add(1)
	return o
}

//go:build unix

package consistency

import (
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/ids"
)

const (
	devices    = 6                      // sessions of an account at a time
	deadLinger = 700 * time.Millisecond // an ended session goes on being checked for so long, then a new one takes its place
)

// An account is a user with preferences and sessions.
type account struct {
	id    uuid.UUID
	path  string
	user  *record // its name; strict
	prefs *record // one preference; bounded

	readUser, readUserFresh, readPrefs []byte // requests

	slots [devices]atomic.Pointer[session]

	mu      sync.Mutex
	all     map[*session]bool // that a write to all sessions of the account may end
	enders  int               // such writes that may still come into effect
	doubted bool              // one of them was never answered

	suspendedAt int64 // the version of the user that may be suspended; 0: there is none
}

// A session ends once. What was cached of it must not outlive that.
type session struct {
	account *account
	id      string
	token   string
	check   []byte // request

	using    sync.Mutex   // by one writer at a time
	open     atomic.Bool  // the session is there to be read
	enders   atomic.Int32 // writes that have ended it, or may have
	deadFrom atomic.Int64 // an instant from when on no read may find it alive; 0: none
	deadSeen atomic.Int64 // an instant when it was found dead; 0: never
}

// newAccount inserts an account past Strata: nobody can have asked for it yet.
func newAccount(t *testing.T, d *sql.DB, n int) *account {
	t.Helper()
	a := &account{id: ids.New(), all: map[*session]bool{}}
	if _, err := d.ExecContext(t.Context(), `INSERT INTO users (id, email, name) VALUES ($1, $2, $3)`,
		a.id, a.id.String()+"@example.com", state{version: 1}.String()); err != nil {
		t.Fatal(err)
	}
	a.path = "/v1/users/" + ids.Format("user", a.id)
	a.user, a.prefs = newRecord(fmt.Sprintf("user %d", n)), newRecord(fmt.Sprintf("preferences %d", n))
	a.readUser = request("GET", a.path, rootKey, "", "")
	a.readUserFresh = request("GET", a.path, rootKey, "Cache-Control: no-cache\r\n", "")
	a.readPrefs = request("GET", a.path+"/preferences", rootKey, "", "")
	for i := range a.slots {
		if err := a.open(d, i); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// open puts a new session into a slot, past Strata too: a sign-in would cost a password hash.
func (a *account) open(d *sql.DB, slot int) error {
	var bits [32]byte
	_, _ = rand.Read(bits[:]) // never fails
	id := ids.New()
	s := a.expect()
	s.name(ids.Format("ses", id), "st_"+base64.RawURLEncoding.EncodeToString(bits[:]))
	hash := sha256.Sum256([]byte(s.token))
	if _, err := d.Exec(`INSERT INTO sessions (id, user_id, token_hash, expires_at, idle_expires_at)
		VALUES ($1, $2, $3, now() + interval '1 day', now() + interval '1 day')`, id, a.id, hash[:]); err != nil {
		return err
	}
	s.open.Store(true)
	if old := a.slots[slot].Swap(s); old != nil {
		a.mu.Lock()
		delete(a.all, old)
		a.mu.Unlock()
	}
	return nil
}

// expect notes a session that is about to be made. Whatever ends all sessions of the account meanwhile may end it too, and
// while the user is suspended it is as good as dead.
func (a *account) expect() *session {
	s := &session{account: a}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all[s] = true
	if a.enders > 0 || a.doubted || a.suspendedAt > 0 {
		s.enders.Add(1)
	}
	return s
}

func (s *session) name(id, token string) {
	s.id, s.token = id, token
	s.check = request("GET", "/v1/sessions/current", token, "", "")
}

// suspendedFrom notes that the user may be suspended from a version on, and so have no sessions.
func (a *account) suspendedFrom(version int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.suspendedAt = max(a.suspendedAt, version)
}

// activeAt notes that the user was active in a version. Until that binds readers, they may find the user suspended.
func (a *account) activeAt(version int64) {
	if a.user.least(now()) < version {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if version >= a.suspendedAt {
		a.suspendedAt = 0
	}
}

// refill replaces the sessions that have been dead for a while, unless the user is suspended.
func (a *account) refill(d *sql.DB) error {
	a.mu.Lock()
	suspended := a.suspendedAt > 0
	a.mu.Unlock()
	if suspended {
		return nil
	}
	var errs []error
	for i := range a.slots {
		s := a.slots[i].Load()
		if dead := max(s.deadFrom.Load(), s.deadSeen.Load()); dead != 0 && now() > instant(dead)+instant(deadLinger) {
			errs = append(errs, a.open(d, i))
		}
	}
	return errors.Join(errs...)
}

// An ending is a write that ends sessions: one, or all that an account has.
type ending struct {
	account  *account // nil where it ends one
	certain  []*session
	possible []*session
}

func endOne(s *session) *ending {
	s.enders.Add(1)
	return &ending{certain: []*session{s}}
}

func (a *account) endAll() *ending {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.enders++
	e := &ending{account: a}
	for s := range a.all {
		s.enders.Add(1)
		if s.open.Load() {
			e.certain = append(e.certain, s)
		} else {
			e.possible = append(e.possible, s)
		}
	}
	return e
}

// end says what became of it. Where it was acknowledged, the sessions are dead after a grace.
func (e *ending) end(o outcome, grace time.Duration) {
	if e.account != nil {
		e.account.mu.Lock()
		e.account.enders--
		e.account.doubted = e.account.doubted || o == unknown
		e.account.mu.Unlock()
	}
	switch o {
	case applied:
		for _, s := range e.certain {
			s.deadAfter(grace)
		}
	case refused, undone:
		for _, s := range append(e.certain, e.possible...) {
			s.enders.Add(-1)
		}
	}
}

// deadAfter says that no read that begins so much later may find the session alive.
func (s *session) deadAfter(grace time.Duration) {
	at := int64(now()) + int64(grace)
	for {
		old := s.deadFrom.Load()
		if old != 0 && old <= at || s.deadFrom.CompareAndSwap(old, at) {
			return
		}
	}
}

package users

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/rollout"
)

// world is the module with neighbours that remember what they were asked.
type world struct {
	db      *db.DB
	module  *Module
	service *Service

	mu      sync.Mutex
	actions []string
	ended   []string // sessions ended, as user/except
	erased  []uuid.UUID
	fail    error // what the auditor answers
}

func (w *world) Record(ctx context.Context, action, targetType string, targetIDs []string, metadata map[string]any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !db.InTransaction(ctx) {
		return errors.New("recorded outside of a transaction")
	}
	if targetType != "user" || !strings.HasPrefix(targetIDs[0], "user_") {
		return errors.New("recorded without its target")
	}
	if names, ok := metadata["changed"].([]string); ok {
		action += " " + strings.Join(names, ",")
	}
	for range targetIDs {
		w.actions = append(w.actions, action)
	}
	return w.fail
}

func (w *world) EndAll(ctx context.Context, userID, except uuid.UUID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !db.InTransaction(ctx) {
		return errors.New("sessions ended outside of a transaction")
	}
	w.ended = append(w.ended, userID.String()+"/"+except.String())
	return nil
}

func (w *world) Erase(_ context.Context, userID uuid.UUID) error {
	w.erased = append(w.erased, userID)
	return nil
}

// recorded returns the actions since the last call.
func (w *world) recorded() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := strings.Join(w.actions, "; ")
	w.actions = nil
	return s
}

func newWorld(t testing.TB, options ...func(*Config)) *world {
	t.Helper()
	w := &world{db: openDB(t)}
	cfg := Config{HashWait: 30 * time.Second, TokenLifetime: time.Hour, CleanupInterval: time.Hour, ImportBatch: 3}
	for _, o := range options {
		o(&cfg)
	}
	w.module = New(Deps{
		DB: w.db, Repository: newSwitch(w.db, rollout.Repository), Auditor: w, Sessions: w, Erasers: []Eraser{w},
		Log: slog.New(slog.DiscardHandler), Config: cfg,
	})
	w.service = w.module.Service
	return w
}

func anyState(User) error { return nil }

const good = "a-Quiet-horse-77"

func (w *world) signUp(t *testing.T, email string) User {
	t.Helper()
	password := good
	u, err := w.service.Create(t.Context(), NewUser{Email: email, Password: &password, Name: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func wantRecorded(t *testing.T, w *world, want string) {
	t.Helper()
	if got := w.recorded(); got != want {
		t.Errorf("recorded %q, want %q", got, want)
	}
}

func TestValidate(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, tt := range []struct {
		name string
		in   NewUser
		want string // pointer code, sorted
	}{
		{"fine", NewUser{Email: " ada@example.com "}, ""},
		{"a name in another script", NewUser{Email: "ada@bücher.example", Name: "Ада 愛"}, ""},
		{"no e-mail", NewUser{}, "/email required"},
		{"everything", NewUser{Email: "x", Name: long, Password: new(string), Metadata: json.RawMessage(`[]`)}, "/email format, /metadata type, /name too_long, /password too_short"},
		{"a display name", NewUser{Email: "Ada <ada@example.com>"}, "/email format"},
		{"two addresses", NewUser{Email: "a@example.com,b@example.com"}, "/email format"},
		{"a line break", NewUser{Email: "a@example.com\r\nBcc: b@example.com"}, "/email format"},
		{"a long e-mail", NewUser{Email: long + "@example.com"}, "/email too_long"},
		{"a control character", NewUser{Email: "a@example.com", Name: "a\x1bb"}, "/name characters"},
		{"much metadata", NewUser{Email: "a@example.com", Metadata: json.RawMessage(`{"a":"` + strings.Repeat("x", MaxMetadata) + `"}`)}, "/metadata too_long"},
	} {
		err := tt.in.Validate()
		var got []string
		if err != nil {
			for _, f := range errs.From(err).Fields {
				got = append(got, f.Pointer+" "+f.Code)
			}
		}
		slices.Sort(got)
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestCheckPassword(t *testing.T) {
	for password, want := range map[string]string{
		"short-1":                      "too_short",
		"password":                     "too_common",
		"password1":                    "too_common",
		"12345678":                     "too_common",
		"qwertyuiop":                   "too_common",
		"ada@example.com":              "too_common",
		"iloveyou2":                    "too_common",
		good:                           "",
		"correct horse battery staple": "",
		"  spaces count  7 ":           "",
		"пароль-длинный-9":             "",
		good + strings.Repeat(" ", MaxPassword-len(good)): "",
		strings.Repeat("Kq7-", MaxPassword):               "too_long",
	} {
		got := ""
		if fields := checkPassword(password, "ada@example.com", "Ada"); len(fields) > 0 {
			got = fields[0].Code
		}
		if got != want {
			t.Errorf("%.20q: %q, want %q", password, got, want)
		}
	}
}

// Made with Python's hashlib from the salt "somesaltsomesalt".
const (
	pbkdf2OfPassword = "s5LQUeAEZUMuFVrnmF3OMNPXs3QWnF8SO/5BXmCj6QQ"
	scryptOfPassword = "rjCGpPW8r+9XVz9RqXtAszWzNTGPgzIyDDbKAQjn6LU"
)

func TestHasher(t *testing.T) {
	ctx := t.Context()
	h := newHasher(0, time.Minute, nil, nil)
	own, err := h.hash(ctx, "password")
	if err != nil || !strings.HasPrefix(own, ours) || outdated(own) {
		t.Fatalf("own hash %q, %v", own, err)
	}
	for name, hash := range map[string]string{
		"own":                    own,
		"argon2id, other":        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"bcrypt":                 "$2a$10$3fv7Dk4a2ZfQSH55ORO.YODcXEGJQFVnOMH97uYPaIFspea5dfhAW",
		"scrypt":                 "$scrypt$ln=4,r=8,p=1$c29tZXNhbHRzb21lc2FsdA$" + scryptOfPassword,
		"PBKDF2 of passlib":      "$pbkdf2-sha256$1000$c29tZXNhbHRzb21lc2FsdA$" + pbkdf2OfPassword,
		"PBKDF2 of the PHC":      "$pbkdf2-sha256$i=1000$c29tZXNhbHRzb21lc2FsdA$" + pbkdf2OfPassword,
		"PBKDF2 with its length": "$pbkdf2-sha256$i=1000,l=32$c29tZXNhbHRzb21lc2FsdA$" + pbkdf2OfPassword,
	} {
		if !h.acceptable(hash) {
			t.Errorf("%s: not acceptable", name)
			continue
		}
		for password, want := range map[string]bool{"password": true, "Password": false, "": false} {
			if ok, err := h.verify(ctx, password, hash); err != nil || ok != want {
				t.Errorf("%s: verify %q: %t, %v", name, password, ok, err)
			}
		}
		if name != "own" && !outdated(hash) {
			t.Errorf("%s: would be kept", name)
		}
	}
	for _, hash := range []string{
		"", "password", "5f4dcc3b5aa765d61d8327deb882cf99", "$1$abc$def", "$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5Q",
		"$argon2id$v=19$m=65536,t=4000,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5Q", "$2b$31$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
		"$scrypt$ln=30,r=8,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5Q", "$pbkdf2-sha256$i=999999999$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5Q",
		"$argon2id$v=19$m=99999999999999999999,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5Q", strings.Repeat("$", 5000),
	} {
		if h.acceptable(hash) {
			t.Errorf("%.60q is acceptable", hash)
		}
	}
	if ok, err := h.verify(ctx, "a password that no account has", ""); ok || err != nil {
		t.Errorf("nobody's password: %t, %v", ok, err)
	}
}

// TestHasherIsBounded holds the only slot and expects the next to give up in time.
func TestHasherIsBounded(t *testing.T) {
	h := newHasher(1, 20*time.Millisecond, nil, nil)
	h.slots <- struct{}{}
	if _, err := h.hash(t.Context(), good); !errors.Is(err, errs.ErrBusy) {
		t.Errorf("hash on a busy hasher: %v", err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	h.wait = time.Minute
	if _, err := h.verify(canceled, good, ""); !errors.Is(err, errs.ErrCanceled) {
		t.Errorf("verify for a caller that went away: %v", err)
	}
	h.release()
	if _, err := h.hash(t.Context(), good); err != nil {
		t.Error(err)
	}
}

// TestHasherWorksApart cuts the connection to what hashes for it: the caller does not notice, and another one is started.
func TestHasherWorksApart(t *testing.T) {
	var conns []net.Conn
	h := newHasher(2, time.Minute, []Start{func() (io.ReadWriteCloser, error) {
		here, there := net.Pipe()
		conns = append(conns, there)
		go func() { _ = ServeHashing(there) }()
		return here, nil
	}}, slog.New(slog.DiscardHandler))
	for started, cut := range []bool{false, false, true, false} {
		if cut {
			_ = conns[0].Close()
		}
		hash, err := h.hash(t.Context(), good)
		if err != nil || outdated(hash) {
			t.Fatalf("hash %q, %v", hash, err)
		}
		for password, want := range map[string]bool{good: true, "another": false} {
			if ok, err := h.verify(t.Context(), password, hash); err != nil || ok != want {
				t.Errorf("verify %q: %t, %v", password, ok, err)
			}
		}
		if want := 1 + started/2; len(conns) != want {
			t.Errorf("%d connections, want %d", len(conns), want)
		}
	}
}

// TestHasherDoesNotWaitForASilentProcess has it work with processes that take jobs and never answer. The one that may be
// short of time is left alone then; the other is tried again.
func TestHasherDoesNotWaitForASilentProcess(t *testing.T) {
	started := make([]int, 2)
	silent := func(i int) Start {
		return func() (io.ReadWriteCloser, error) {
			started[i]++
			here, there := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, there) }()
			return here, nil
		}
	}
	h := newHasher(1, time.Minute, []Start{silent(0), silent(1)}, slog.New(slog.DiscardHandler))
	hashes := func(want ...int) {
		t.Helper()
		for _, a := range h.apart {
			a.patience = time.Millisecond
		}
		hash, err := h.hash(t.Context(), good)
		if err != nil || outdated(hash) || !slices.Equal(started, want) {
			t.Errorf("hash %q, %v; %v processes were started, want %v", hash, err, started, want)
		}
	}
	hashes(1, 1)
	hashes(1, 2)
	h.apart[0].until = time.Now()
	hashes(2, 3)
}

func TestLifeOfAnAccount(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	u := w.signUp(t, "ada@example.com")
	wantRecorded(t, w, "user.created")

	name, suspended, active := "Countess", Suspended, Active
	_, err := w.service.Update(ctx, u.ID, Patch{Name: &name, Metadata: json.RawMessage(`{"a":{"b":1}}`)}, anyState)
	wantError(t, "Update", err, nil)
	wantRecorded(t, w, "user.updated name,metadata")
	changed, err := w.service.Update(ctx, u.ID, Patch{Metadata: json.RawMessage(`{"a":{"b":null,"c":2}}`)}, anyState)
	wantError(t, "Update", err, nil)
	if string(changed.Metadata) != `{"a":{"c":2}}` {
		t.Errorf("merged metadata %s", changed.Metadata)
	}
	w.recorded()
	_, err = w.service.Update(ctx, u.ID, Patch{Name: &name}, anyState)
	wantError(t, "an update that changes nothing", err, nil)
	wantRecorded(t, w, "")
	refused := errors.New("stale")
	_, err = w.service.Update(ctx, u.ID, Patch{Status: &suspended}, func(User) error { return refused })
	wantError(t, "a stale update", err, refused)

	_, err = w.service.Update(ctx, u.ID, Patch{Status: &suspended}, anyState)
	wantError(t, "suspend", err, nil)
	wantRecorded(t, w, "user.suspended")
	_, err = w.service.Update(ctx, u.ID, Patch{Status: &active}, anyState)
	wantError(t, "reactivate", err, nil)
	wantError(t, "delete", w.service.Delete(ctx, u.ID, anyState), nil)
	wantError(t, "delete again", w.service.Delete(ctx, u.ID, anyState), nil)
	wantRecorded(t, w, "user.reactivated; user.deleted")
	_, err = w.service.Update(ctx, u.ID, Patch{Name: &name}, anyState)
	wantError(t, "a deleted user", err, ErrDeleted)
	_, err = w.service.Restore(ctx, u.ID, anyState)
	wantError(t, "restore", err, nil)
	_, err = w.service.Restore(ctx, u.ID, anyState)
	wantError(t, "restore again", err, ErrNotDeleted)
	wantError(t, "erase", w.service.Erase(ctx, u.ID, anyState), nil)
	wantRecorded(t, w, "user.restored; user.erased")
	_, err = w.service.Restore(ctx, u.ID, anyState)
	wantError(t, "restore after erase", err, ErrNotFound)
	none := "/" + uuid.Nil.String()
	if want := []string{u.ID.String() + none, u.ID.String() + none, u.ID.String() + none}; !slices.Equal(w.ended, want) || !slices.Equal(w.erased, []uuid.UUID{u.ID}) {
		t.Errorf("ended %v, erased %v", w.ended, w.erased)
	}
}

// TestNoChangeWithoutItsEvent lets the audit log fail: then nothing may have happened.
func TestNoChangeWithoutItsEvent(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	u := w.signUp(t, "ada@example.com")
	w.fail = errors.New("no audit log")
	name := "Eve"
	for what, change := range map[string]func() error{
		"create": func() error { _, err := w.service.Create(ctx, NewUser{Email: "eve@example.com"}); return err },
		"update": func() error { _, err := w.service.Update(ctx, u.ID, Patch{Name: &name}, anyState); return err },
		"delete": func() error { return w.service.Delete(ctx, u.ID, anyState) },
		"erase":  func() error { return w.service.Erase(ctx, u.ID, anyState) },
		"password": func() error {
			return w.service.SetPassword(ctx, u.ID, NewPassword{Password: "another-Quiet-9"})
		},
		"import": func() error {
			_, err := w.service.Import(ctx, []ImportLine{{Email: "eve@example.com"}})
			return err
		},
	} {
		wantError(t, what, change(), w.fail)
	}
	got, err := w.service.ByID(ctx, u.ID)
	wantError(t, "ByID", err, nil)
	wantSame(t, "after failures", got, u)
	if all, _ := w.service.List(ctx, Filter{Limit: 10}); len(all) != 1 {
		t.Errorf("%d users", len(all))
	}
	w.fail = nil
	_, err = w.service.Authenticate(ctx, u.Email, good)
	wantError(t, "the password from before", err, nil)
}

func TestAuthenticate(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	u := w.signUp(t, "Ada@example.com")
	verified, err := w.service.Authenticate(ctx, " ADA@example.com", good)
	wantError(t, "sign in", err, nil)
	for what, try := range map[string][2]string{"password": {"ada@example.com", "wrong"}, "e-mail": {"eve@example.com", good}, "nothing": {"", ""}} {
		_, err = w.service.Authenticate(ctx, try[0], try[1])
		wantError(t, "wrong "+what, err, ErrInvalidCredentials)
	}
	signIn := func(v Verified) error {
		return w.db.InTx(ctx, func(ctx context.Context) error { _, err := w.service.SignedIn(ctx, v); return err })
	}
	wantError(t, "SignedIn", signIn(verified), nil)
	wantError(t, "SetPassword", w.service.SetPassword(ctx, u.ID, NewPassword{Password: "another-Quiet-9"}), nil)
	wantError(t, "a sign-in that the password's change overtook", signIn(verified), ErrInvalidCredentials)
	verified, err = w.service.Authenticate(ctx, u.Email, "another-Quiet-9")
	wantError(t, "the new password", err, nil)
	suspended := Suspended
	_, err = w.service.Update(ctx, u.ID, Patch{Status: &suspended}, anyState)
	wantError(t, "suspend", err, nil)
	wantError(t, "a sign-in that a suspension overtook", signIn(verified), ErrSuspended)
	_, err = w.service.Authenticate(ctx, u.Email, "another-Quiet-9")
	wantError(t, "suspended", err, ErrSuspended)
	_, err = w.service.Authenticate(ctx, u.Email, "wrong")
	wantError(t, "suspended, and the wrong password", err, ErrInvalidCredentials)
	wantError(t, "Delete", w.service.Delete(ctx, u.ID, anyState), nil)
	_, err = w.service.Authenticate(ctx, u.Email, "another-Quiet-9")
	wantError(t, "deleted", err, ErrInvalidCredentials)
}

func TestSetPassword(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	u := w.signUp(t, "ada@example.com")
	wrong, current, keep := "wrong", good, ids.New()
	set := func(in NewPassword) error { return w.service.SetPassword(ctx, u.ID, in) }
	wantError(t, "wrong current", set(NewPassword{Password: "another-Quiet-9", Current: &wrong}), ErrWrongPassword)
	wantError(t, "common", set(NewPassword{Password: "password", Current: &current}), errs.ErrInvalid)
	wantError(t, "right", set(NewPassword{Password: "another-Quiet-9", Current: &current, Keep: keep}), nil)
	if want := []string{u.ID.String() + "/" + keep.String()}; !slices.Equal(w.ended, want) {
		t.Errorf("ended %v, want %v", w.ended, want)
	}
	wantError(t, "the former one", set(NewPassword{Password: "a-third-Quiet-9", Current: &current}), ErrWrongPassword)
	wantError(t, "nobody", w.service.SetPassword(ctx, ids.New(), NewPassword{Password: good}), ErrNotFound)
}

func TestImportedHashIsUpgraded(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	foreign := "$2a$10$3fv7Dk4a2ZfQSH55ORO.YODcXEGJQFVnOMH97uYPaIFspea5dfhAW"
	results, err := w.service.Import(ctx, []ImportLine{
		{Email: "ada@example.com", PasswordHash: foreign},
		{Email: "bad"},
		{Email: "eve@example.com", PasswordHash: "5f4dcc3b5aa765d61d8327deb882cf99"},
		{Email: "ADA@example.com"},
	})
	wantError(t, "Import", err, nil)
	wantError(t, "bad e-mail", results[1].Err, errs.ErrInvalid)
	wantError(t, "bad hash", results[2].Err, errs.ErrInvalid)
	if !results[0].Created || results[3].Created || results[3].ID != results[0].ID {
		t.Errorf("results %+v", results)
	}
	wantRecorded(t, w, "user.imported")
	_, err = w.service.Authenticate(ctx, "ada@example.com", "password")
	wantError(t, "sign in with a foreign hash", err, nil)
	hash, err := w.service.repo.Credential(ctx, results[0].ID)
	if err != nil || outdated(hash) {
		t.Errorf("the hash after a sign-in is %.20q, %v", hash, err)
	}
	_, err = w.service.Authenticate(ctx, "ada@example.com", "password")
	wantError(t, "sign in again", err, nil)
}

func TestMailedTokens(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	u := w.signUp(t, "ada@example.com")
	mailed, err := w.service.RequestEmailVerification(ctx, u.ID)
	wantError(t, "request", err, nil)
	wantError(t, "a token for something else", w.service.ResetPassword(ctx, mailed.Token, "another-Quiet-9"), ErrTokenInvalid)
	confirmed, err := w.service.ConfirmEmail(ctx, mailed.Token)
	wantError(t, "confirm", err, nil)
	if !confirmed.EmailVerified {
		t.Error("the e-mail is not verified")
	}
	_, err = w.service.ConfirmEmail(ctx, mailed.Token)
	wantError(t, "confirm again", err, ErrTokenInvalid)

	former, err := w.service.RequestEmailVerification(ctx, u.ID)
	wantError(t, "request", err, nil)
	email := "countess@example.com"
	changed, err := w.service.Update(ctx, u.ID, Patch{Email: &email}, anyState)
	wantError(t, "Update", err, nil)
	if changed.EmailVerified {
		t.Error("a new address is verified")
	}
	_, err = w.service.ConfirmEmail(ctx, former.Token)
	wantError(t, "a token for a former address", err, ErrTokenInvalid)

	nobody, err := w.service.RequestPasswordReset(ctx, "nobody@example.com")
	wantError(t, "reset for nobody", err, nil)
	one, err := w.service.RequestPasswordReset(ctx, email)
	wantError(t, "reset", err, nil)
	if len(nobody.Token) != len(one.Token) || time.Until(nobody.ExpiresAt) < 59*time.Minute {
		t.Errorf("nobody's token %v differs from %v", nobody, one)
	}
	two, err := w.service.RequestPasswordReset(ctx, email)
	wantError(t, "reset", err, nil)
	wantError(t, "nobody's token", w.service.ResetPassword(ctx, nobody.Token, "another-Quiet-9"), ErrTokenInvalid)
	wantError(t, "a common password", w.service.ResetPassword(ctx, one.Token, "password"), errs.ErrInvalid)
	wantError(t, "the own address", w.service.ResetPassword(ctx, one.Token, email), errs.ErrInvalid)
	wantError(t, "reset", w.service.ResetPassword(ctx, one.Token, "another-Quiet-9"), nil)
	wantError(t, "the other token", w.service.ResetPassword(ctx, two.Token, "a-third-Quiet-9"), ErrTokenInvalid)
	if len(w.ended) != 1 {
		t.Errorf("ended %v", w.ended)
	}
	_, err = w.service.Authenticate(ctx, email, "another-Quiet-9")
	wantError(t, "the new password", err, nil)
}

func TestSameJSON(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{`{"a":1,"b":[null,true]}`, `{ "b": [null, true], "a": 1 }`, true},
		{`{"a":[null]}`, `{"a":[0]}`, false},
		{`{"a":10000000000000001}`, `{"a":10000000000000002}`, false},
		{`{"a":1}`, `{"a":1,"b":null}`, false},
		{`{`, `{}`, false},
	} {
		if got := sameJSON(json.RawMessage(tt.a), json.RawMessage(tt.b)); got != tt.want {
			t.Errorf("%s and %s: %v, want %v", tt.a, tt.b, got, tt.want)
		}
	}
}

// FuzzPatch merges any patch into metadata: it either is refused or leaves an object.
func FuzzPatch(f *testing.F) {
	for _, seed := range []string{`{"a":null}`, `{"a":{"b":[1]}}`, `[]`, `null`, `{"a":1e400}`, `{`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, patch []byte) {
		u := User{Email: "ada@example.com", Metadata: json.RawMessage(`{"a":{"b":1},"c":[1,2]}`)}
		p := Patch{Metadata: patch}
		if err := p.Validate(); err != nil {
			if errs.KindOf(err) != errs.Invalid {
				t.Errorf("%q: %v", patch, err)
			}
			return
		}
		if err := p.apply(&u); err != nil {
			if errs.KindOf(err) != errs.Invalid {
				t.Errorf("%q: %v", patch, err)
			}
			return
		}
		var object map[string]any
		if err := json.Unmarshal(u.Metadata, &object); err != nil || object == nil {
			t.Errorf("%q left %q: %v", patch, u.Metadata, err)
		}
	})
}

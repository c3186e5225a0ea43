package web_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/strata-accounts/strata/platform/db/dbtest"
	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/web"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

const keyHeader = "Idempotency-Key"

func TestIdempotentReplay(t *testing.T) {
	f := newFixture(t)
	first := f.Do("POST", "/v1/things", `{"name":"one"}`, keyHeader, "k1").Want(201)
	again := f.Do("POST", "/v1/things", `{"name":"one"}`, keyHeader, "k1").Want(201)
	if string(again.Body) != string(first.Body) {
		t.Errorf("the second answer is\n%s, want the first\n%s", again.Body, first.Body)
	}
	for _, name := range []string{"Location", "Etag", "Content-Type"} {
		if again.Header.Get(name) != first.Header.Get(name) {
			t.Errorf("%s is %q, want %q", name, again.Header.Get(name), first.Header.Get(name))
		}
	}
	if first.Header.Get("Idempotency-Replayed") != "" || again.Header.Get("Idempotency-Replayed") != "true" {
		t.Error("Idempotency-Replayed must be on the second answer, and only there")
	}
	if f.toy.calls != 1 {
		t.Errorf("the handler ran %d times", f.toy.calls)
	}

	f.Do("POST", "/v1/things", `{"name":"two"}`, keyHeader, "k1").WantProblem(422, "idempotency_key_reused")
	// A refusal is an answer too.
	f.Do("POST", "/v1/things", `{"name":"one"}`, keyHeader, "k2").WantProblem(409, "thing_exists")
	f.Do("POST", "/v1/things", `{"name":"one"}`, keyHeader, "k2").WantProblem(409, "thing_exists")
	if f.toy.calls != 2 {
		t.Errorf("the handler ran %d times, want 2", f.toy.calls)
	}
	for _, bad := range []string{"a b", "ü", strings.Repeat("x", 256)} {
		f.Do("POST", "/v1/things", `{"name":"three"}`, keyHeader, bad).WantProblem(400, "idempotency_key_malformed")
	}
}

func TestIdempotencyKeysBelongToTheirCaller(t *testing.T) {
	f := newFixture(t, func(c *web.Config, _ *web.Deps) {
		c.Keys = append(c.Keys, webtest.Key("writer", "sk_writer", "things:write"))
	})
	f.Do("POST", "/v1/things", `{"name":"one"}`, keyHeader, "k").Want(201)
	f.anyone.As("sk_writer").Do("POST", "/v1/things", `{"name":"two"}`, keyHeader, "k").Want(201)
	f.anyone.As(readerKey).Do("POST", "/v1/things", `{"name":"one"}`, keyHeader, "k").WantProblem(403, "scope_missing")
	f.anyone.Do("POST", "/v1/things", `{"name":"one"}`, keyHeader, "k").WantProblem(401, "unauthenticated")
}

func TestFailuresAreNotKept(t *testing.T) {
	f := newFixture(t)
	f.Do("POST", "/v1/failures/once", nil, keyHeader, "k").WantProblem(503, "busy")
	f.Do("POST", "/v1/failures/once", nil, keyHeader, "k").Want(204)
	f.Do("POST", "/v1/failures/once", nil, keyHeader, "k").Want(204)
	if f.toy.calls != 2 {
		t.Errorf("the handler ran %d times, want 2", f.toy.calls)
	}
	f.Do("POST", "/v1/failures/panic", nil, keyHeader, "p").WantProblem(500, "internal_error")
	f.Do("POST", "/v1/failures/panic", nil, keyHeader, "p").WantProblem(500, "internal_error") // and not 409
	f.anyone.Do("POST", "/v1/sign-in", `{"password":"wrong"}`, keyHeader, "s").WantProblem(401, "invalid_credentials")
	f.anyone.Do("POST", "/v1/sign-in", `{"password":"wrong"}`, keyHeader, "s").WantProblem(401, "invalid_credentials")
}

func TestConcurrentRequestsWithOneKeyRunOnce(t *testing.T) {
	f := newFixture(t)
	var wg sync.WaitGroup
	statuses := make([]int, 8)
	for i := range statuses {
		wg.Go(func() {
			res := f.Do("POST", "/v1/things", `{"name":"one"}`, keyHeader, "k")
			statuses[i] = res.Status
			if res.Status == 409 && (!strings.Contains(string(res.Body), "idempotency_in_flight") || res.Header.Get("Retry-After") == "") {
				t.Errorf("409 with %v\n%s", res.Header, res.Body)
			}
		})
	}
	wg.Wait()
	created := 0
	for _, status := range statuses {
		if status == http.StatusCreated {
			created++
		} else if status != http.StatusConflict {
			t.Errorf("status %d", status)
		}
	}
	if created == 0 || f.toy.calls != 1 {
		t.Errorf("%d answers of 201, and the handler ran %d times; want at least one, and once", created, f.toy.calls)
	}
}

// TestAbandonedRequestsAreFinished: a client that comes back with its key gets the answer that it did not wait for, also
// where that took longer than keeping it may.
func TestAbandonedRequestsAreFinished(t *testing.T) {
	web.ShortenSettling(t, longWork*4/5)
	f := newFixture(t)
	srv := httptest.NewServer(f.server.Handler())
	defer srv.Close()
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+"/v1/failures/long", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+webtest.RootKey)
	req.Header.Set(keyHeader, "k")
	go func() {
		for f.toy.called() == 0 {
			time.Sleep(time.Millisecond)
		}
		leave()
	}()
	if res, err := srv.Client().Do(req); err == nil {
		res.Body.Close()
		t.Fatal("the client did not leave in time")
	}
	again := f.Do("POST", "/v1/failures/long", nil, keyHeader, "k")
	for again.Status == http.StatusConflict {
		time.Sleep(10 * time.Millisecond)
		again = f.Do("POST", "/v1/failures/long", nil, keyHeader, "k")
	}
	if again.Want(204).Header.Get("Idempotency-Replayed") != "true" || f.toy.called() != 1 {
		t.Errorf("the handler ran %d times; want once, and its answer again", f.toy.called())
	}
}

func TestLeaseOfADeadInstanceRunsOut(t *testing.T) {
	d := dbtest.Open(t, web.Migrations())
	f := newFixture(t, func(_ *web.Config, deps *web.Deps) { deps.DB = d })
	f.Do("POST", "/v1/things", `{"name":"one"}`, keyHeader, "k").Want(201)
	set := func(assignments string) {
		t.Helper()
		if _, err := d.SQL().ExecContext(t.Context(), "UPDATE idempotency_keys SET "+assignments); err != nil {
			t.Fatal(err)
		}
	}
	set("status = NULL, answer = NULL") // as if the instance had died in the middle
	f.Do("POST", "/v1/things", `{"name":"one"}`, keyHeader, "k").WantProblem(409, "idempotency_in_flight")
	set("leased_till = now() - interval '1 second'")
	f.Do("POST", "/v1/things", `{"name":"two"}`, keyHeader, "k").WantProblem(422, "idempotency_key_reused")
	f.Do("POST", "/v1/things", `{"name":"one"}`, keyHeader, "k").WantProblem(409, "thing_exists") // ran again

	set("expires_at = now() - interval '1 second'")
	f.Do("POST", "/v1/things", `{"name":"three"}`, keyHeader, "k").Want(201) // the key is free for another request
	set("expires_at = now() - interval '1 second'")
	if n, err := f.server.CleanupIdempotencyKeys(t.Context()); n != 1 || err != nil {
		t.Errorf("cleanup deleted %d, %v; want 1", n, err)
	}
	f.Do("POST", "/v1/things", `{"name":"four"}`, keyHeader, "k").Want(201)
	if n, err := f.server.CleanupIdempotencyKeys(t.Context()); n != 0 || err != nil {
		t.Errorf("cleanup deleted %d, %v; want none", n, err)
	}
}

// TestWhatWasDoneIsNotDoneAgain, whatever becomes of the answer.
func TestWhatWasDoneIsNotDoneAgain(t *testing.T) {
	d := dbtest.Open(t, web.Migrations())
	f := newFixture(t, func(_ *web.Config, deps *web.Deps) { deps.DB = d })
	exec := func(query string) {
		t.Helper()
		if _, err := d.SQL().ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE notes (at timestamptz DEFAULT now())")
	var before, after error
	var within string
	web.Register(f.server.API(), web.Operation{ID: "note", Method: "POST", Path: "/v1/notes", Auth: web.Auth{Any: true}},
		func(ctx context.Context, _ *struct{}) (*struct{}, error) {
			err := d.InTx(ctx, func(ctx context.Context) error {
				if _, err := d.Querier(ctx).ExecContext(ctx, "INSERT INTO notes DEFAULT VALUES"); err != nil {
					return err
				}
				if within != "" {
					exec(within)
				}
				return before
			})
			if err != nil {
				return nil, err
			}
			return nil, after
		})
	want := func(notes int) {
		t.Helper()
		var n int
		if err := d.SQL().QueryRowContext(t.Context(), "SELECT count(*) FROM notes").Scan(&n); err != nil || n != notes {
			t.Errorf("%d notes, %v; want %d", n, err, notes)
		}
	}
	client := webtest.New(t, f.server).As(webtest.RootKey)
	post := func(key string) *webtest.Response { return client.Do("POST", "/v1/notes", nil, keyHeader, key) }

	post("died").Want(204)
	exec("UPDATE idempotency_keys SET status = NULL, answer = NULL") // as if the instance had died before it kept the answer
	post("died").WantProblem(409, "idempotency_in_flight")
	exec("UPDATE idempotency_keys SET leased_till = now() - interval '1 second'")
	post("died").WantProblem(409, "idempotency_answer_lost")
	want(1)

	before = errs.ErrBusy
	post("failed").WantProblem(503, "busy")
	want(1)
	before, after = nil, errs.ErrUnavailable
	post("failed").WantProblem(503, "unavailable") // ran again, as nothing had been done
	want(2)
	after = nil
	post("failed").WantProblem(409, "idempotency_answer_lost")
	want(2)

	after = web.ErrCredentialInvalid // what was done is the record of a failure
	post("refused").WantProblem(401, "credential_invalid")
	post("refused").WantProblem(401, "credential_invalid")
	want(4)

	after, within = nil, "UPDATE idempotency_keys SET lease = gen_random_uuid()"
	post("late").WantProblem(409, "idempotency_in_flight")
	want(4)
}

func TestKeptAnswersAreSealed(t *testing.T) {
	d := dbtest.Open(t, web.Migrations())
	f := newFixture(t, func(_ *web.Config, deps *web.Deps) { deps.DB = d })
	res := f.anyone.Do("POST", "/v1/sign-in", `{"password":"`+secret+`"}`, keyHeader, "k").Want(200)
	var body struct{ Token string }
	res.JSON(&body)
	var rows string
	err := d.SQL().QueryRowContext(t.Context(), "SELECT string_agg(encode(k.answer, 'escape') || k::text, '') FROM idempotency_keys k").Scan(&rows)
	if err != nil {
		t.Fatal(err)
	}
	for _, leak := range []string{body.Token, secret} {
		if strings.Contains(rows, leak) {
			t.Errorf("the table shows %q", leak)
		}
	}
	// Guessing the key is not enough: only the same request opens the answer.
	f.anyone.Do("POST", "/v1/sign-in", `{"password":"guess"}`, keyHeader, "k").WantProblem(422, "idempotency_key_reused")
	var again struct{ Token string }
	f.anyone.Do("POST", "/v1/sign-in", `{"password":"`+secret+`"}`, keyHeader, "k").Want(200).JSON(&again)
	if again.Token != body.Token {
		t.Error("the same request did not get its first answer")
	}
}

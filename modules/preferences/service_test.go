package preferences

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/rollout"
	"github.com/strata-accounts/strata/platform/web"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

var errNoUser = errs.New(errs.NotFound, "user_not_found", "There is no such user.")

// people stands in for the users module: rows that can be locked.
type people struct{ db *db.DB }

func (p people) Exists(ctx context.Context, id uuid.UUID) error {
	return p.find(ctx, `SELECT 1 FROM people WHERE id = $1`, id)
}

func (p people) Hold(ctx context.Context, id uuid.UUID) error {
	return p.find(ctx, `SELECT 1 FROM people WHERE id = $1 FOR SHARE`, id)
}

func (p people) find(ctx context.Context, query string, id uuid.UUID) error {
	var one int
	err := p.db.Querier(ctx).QueryRowContext(ctx, query, id).Scan(&one)
	if db.IsNoRows(err) {
		return errNoUser
	}
	return err
}

// journal keeps what was recorded, as "action target changed", of transactions that were committed.
type journal struct {
	mu     sync.Mutex
	events []string
}

func (j *journal) Record(ctx context.Context, action, targetType string, targetIDs []string, metadata map[string]any) error {
	if !db.InTransaction(ctx) {
		return errors.New("recorded outside of the transaction")
	}
	event := strings.TrimSpace(fmt.Sprint(action, " ", targetType, ":", strings.Join(targetIDs, ","), " ", metadata["changed"]))
	db.AfterCommit(ctx, func(context.Context) {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.events = append(j.events, strings.TrimSuffix(event, " <nil>"))
	})
	return nil
}

// take returns what was recorded since it was last called.
func (j *journal) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	events := j.events
	j.events = nil
	return events
}

// world is the module with its neighbours.
type world struct {
	*Module
	t       testing.TB
	db      *db.DB
	journal *journal
}

func newWorld(t testing.TB, stage rollout.Stage) *world {
	t.Helper()
	d := openDB(t)
	if _, err := d.SQL().ExecContext(t.Context(), `CREATE TABLE people (id uuid PRIMARY KEY)`); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, db: d, journal: &journal{}}
	w.Module = New(Deps{DB: d, Repository: newSwitch(d, stage), Users: people{d}, Auditor: w.journal})
	return w
}

// person makes a user.
func (w *world) person() uuid.UUID {
	w.t.Helper()
	id := ids.New()
	if _, err := w.db.SQL().ExecContext(w.t.Context(), `INSERT INTO people VALUES ($1)`, id); err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *world) define(key, schema, value string) Definition {
	w.t.Helper()
	d, _, err := w.put(key, schema, value)
	if err != nil {
		w.t.Fatalf("define %s: %v", key, err)
	}
	return d
}

func (w *world) put(key, schema, value string) (Definition, bool, error) {
	return w.Service.PutDefinition(w.t.Context(), key,
		NewDefinition{Schema: json.RawMessage(schema), Default: json.RawMessage(value)}, anyVersion)
}

func (w *world) patch(user uuid.UUID, patch string) error {
	w.t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(patch), &members); err != nil {
		w.t.Fatal(err)
	}
	_, err := w.Service.Patch(w.t.Context(), user, members, anyTag)
	return err
}

// effective renders what holds for a user: key, value, and a * where the user set it.
func (w *world) effective(user uuid.UUID) []string {
	w.t.Helper()
	p, err := w.Service.Of(w.t.Context(), user)
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for e := range p.All {
		mark := ""
		if e.Source == FromUser {
			mark = "*"
		}
		out = append(out, e.Key+mark+"="+string(e.Value))
	}
	return out
}

func (w *world) want(what string, user uuid.UUID, want ...string) {
	w.t.Helper()
	if got := w.effective(user); !slices.Equal(got, want) {
		w.t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func (w *world) wantEvents(what string, want ...string) {
	w.t.Helper()
	if got := w.journal.take(); !slices.Equal(got, want) {
		w.t.Errorf("%s recorded %q, want %q", what, got, want)
	}
}

func anyVersion(int64) error { return nil }
func anyTag(string) error    { return nil }

// fields returns the violations of an error as "place code".
func fields(err error) []string {
	var out []string
	for _, f := range errs.From(err).Fields {
		out = append(out, f.Pointer+f.Param+" "+f.Code)
	}
	return out
}

const editorSchema = `{"type":"object","properties":{"tabs":{"type":"integer","minimum":1},"wrap":{"type":"boolean"}},"additionalProperties":false}`

func TestPatch(t *testing.T) {
	w := newWorld(t, rollout.Repository)
	w.define("theme", `{"enum":["light","dark"]}`, `"light"`)
	w.define("editor", editorSchema, `{"tabs":4,"wrap":true}`)
	w.define("anything", `{}`, `null`)
	user := w.person()
	subject := ids.Format(userIDPrefix, user)
	w.journal.take()
	w.want("at first", user, `anything=null`, `editor={"tabs":4,"wrap":true}`, `theme="light"`)

	wantError(t, "patch", w.patch(user, `{"theme":"dark","editor":{"tabs":2,"wrap":null}}`), nil)
	w.want("merged with the default", user, `anything=null`, `editor*={"tabs":2}`, `theme*="dark"`)
	w.wantEvents("patch", `preferences.updated user:`+subject+` [editor theme]`)
	wantError(t, "patch", w.patch(user, `{"theme":null,"editor":{"wrap":false}}`), nil)
	w.want("merged with what was set", user, `anything=null`, `editor*={"tabs":2,"wrap":false}`, `theme="light"`)
	w.wantEvents("patch", `preferences.updated user:`+subject+` [editor theme]`)
	wantError(t, "a patch that changes nothing", w.patch(user, `{"editor":{"wrap":false},"theme":null}`), nil)
	wantError(t, "an empty patch", w.patch(user, `{}`), nil)
	w.wantEvents("no change")

	err := w.patch(user, `{"theme":"secret","editor":{"tabs":0,"a/b":1},"nothing":1,"anything":{"x":[1]}}`)
	wantError(t, "a bad patch", err, errs.ErrInvalid)
	if got, want := fields(err), []string{
		"/editor/a~1b unknown_member", "/editor/tabs too_small", "/nothing preference_not_defined", "/theme not_allowed",
	}; !slices.Equal(got, want) {
		t.Errorf("violations %q, want %q", got, want)
	}
	if strings.Contains(fmt.Sprint(errs.From(err).Fields), "secret") {
		t.Errorf("a rejected value is repeated: %v", errs.From(err).Fields)
	}
	w.want("after a bad patch", user, `anything=null`, `editor*={"tabs":2,"wrap":false}`, `theme="light"`)
	w.wantEvents("a bad patch")
	wantError(t, "nobody", w.patch(ids.New(), `{"theme":"dark"}`), errNoUser)
	_, err = w.Service.Of(t.Context(), ids.New())
	wantError(t, "the preferences of nobody", err, errNoUser)
}

func TestPutAndReset(t *testing.T) {
	w, ctx := newWorld(t, rollout.Direct), t.Context()
	w.define("editor", editorSchema, `{"tabs":4}`)
	w.define("anything", `{}`, `0`)
	user := w.person()
	put := func(key, value string) error {
		_, err := w.Service.Put(ctx, user, key, json.RawMessage(value), anyTag)
		return err
	}
	wantError(t, "put", put("editor", `{ "wrap": true }`), nil)
	wantError(t, "put null", put("anything", `null`), nil)
	w.want("replaced, not merged", user, `anything*=null`, `editor*={"wrap":true}`)
	err := put("editor", `{"tabs":0}`)
	if got := fields(err); !slices.Equal(got, []string{"/value/tabs too_small"}) {
		t.Errorf("violations %q", got)
	}
	wantError(t, "put of what is not defined", put("nothing", `1`), ErrNotDefined)
	for range 2 {
		_, err = w.Service.Reset(ctx, user, "editor", anyTag)
		wantError(t, "reset", err, nil)
	}
	_, err = w.Service.Reset(ctx, user, "nothing", anyTag)
	wantError(t, "reset of what is not defined", err, ErrNotDefined)
	w.want("reset", user, `anything*=null`, `editor={"tabs":4}`)
}

// The tag changes with whatever changes the answer, and If-Match is decided on the state that is then changed.
func TestTag(t *testing.T) {
	w, ctx := newWorld(t, rollout.Repository), t.Context()
	w.define("theme", `{"type":"string"}`, `"light"`)
	user, other := w.person(), w.person()
	seen := map[string]string{}
	tag := func(what string) string {
		p, err := w.Service.Of(ctx, user)
		wantError(t, what, err, nil)
		if before, ok := seen[p.Tag]; ok {
			t.Errorf("%s has the tag of %s", what, before)
		}
		seen[p.Tag] = what
		return p.Tag
	}
	tag("the default")
	w.define("theme", `{"type":"string"}`, `"dark"`)
	tag("another default")
	wantError(t, "patch", w.patch(user, `{"theme":"dark"}`), nil)
	tag("the default, set by the user")
	wantError(t, "patch", w.patch(user, `{"theme":null}`), nil)
	tag("returned to the default")
	w.define("size", `{}`, `1`)
	current := tag("another definition")
	wantError(t, "another user", w.patch(other, `{"size":2}`), nil)

	match := func(want string) Guard {
		return func(tag string) error {
			if tag != want {
				return errs.New(errs.Precondition, "stale", "")
			}
			return nil
		}
	}
	p, err := w.Service.Patch(ctx, user, map[string]json.RawMessage{"size": json.RawMessage(`3`)}, match(current))
	wantError(t, "a current tag", err, nil)
	if now := tag("after the patch"); now != p.Tag {
		t.Errorf("patch returned the tag %s, then it is %s", p.Tag, now)
	}
	for what, change := range map[string]func() error{
		"patch": func() error { _, err := w.Service.Patch(ctx, user, nil, match(current)); return err },
		"put": func() error {
			_, err := w.Service.Put(ctx, user, "size", json.RawMessage(`4`), match(current))
			return err
		},
		"reset": func() error { _, err := w.Service.Reset(ctx, user, "size", match(current)); return err },
	} {
		if err := change(); errs.KindOf(err) != errs.Precondition {
			t.Errorf("%s with a stale tag: %v", what, err)
		}
	}
	w.want("after stale changes", user, `size*=3`, `theme="dark"`)
}

// A patch does all that RFC 7396 says to what holds, or nothing.
func TestPatchIsAllOrNothing(t *testing.T) {
	w := newWorld(t, rollout.Repository)
	w.define("a", `{"type":["object","string"]}`, `{"b":1}`)
	w.define("b", `{"not":{"type":"boolean"}}`, `"x"`)
	user := w.person()
	rapid.Check(t, func(rt *rapid.T) {
		patch := rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "nothing"}), webtest.AnyJSON(2), 0, 3).Draw(rt, "patch")
		before := w.document(user)
		text, err := web.EncodeValue(patch)
		if err != nil {
			rt.Fatal(err)
		}
		err = w.patch(user, string(text))
		after := w.document(user)
		merged, _ := web.MergeValue(before, patch).(map[string]any)
		for key, value := range map[string]any{"a": webtest.Decode(rt, `{"b":1}`), "b": "x"} {
			if _, holds := merged[key]; !holds {
				merged[key] = value
			}
		}
		_, undefined := patch["nothing"]
		_, object := merged["a"].(map[string]any)
		_, text2 := merged["a"].(string)
		_, boolean := merged["b"].(bool)
		allowed := !undefined && (object || text2) && !boolean
		switch {
		case allowed != (err == nil):
			rt.Fatalf("%s on %v: error %v", text, before, err)
		case err != nil && !errors.Is(err, errs.ErrInvalid):
			rt.Fatal(err)
		case err != nil && !reflect.DeepEqual(after, before):
			rt.Fatalf("a refused patch %s made %v of %v", text, after, before)
		case err == nil && !reflect.DeepEqual(after, merged):
			rt.Fatalf("%s on %v made %v, want %v", text, before, after, merged)
		}
	})
}

// document returns what holds for a user as a decoded object.
func (w *world) document(user uuid.UUID) map[string]any {
	w.t.Helper()
	p, err := w.Service.Of(w.t.Context(), user)
	if err != nil {
		w.t.Fatal(err)
	}
	document := map[string]any{}
	for e := range p.All {
		document[e.Key] = webtest.Decode(w.t, string(e.Value))
	}
	return document
}

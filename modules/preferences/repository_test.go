package preferences

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/cache/cachetest"
	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/rollout"
)

// TestRepository runs the one conformance suite on every rung, on the switch at every stage, and on the cache in each of
// its deployments: what passes here is what a caller sees, whoever answers.
func TestRepository(t *testing.T) {
	rungs := map[string]func(*testing.T, *db.DB) Repository{
		"direct":   func(_ *testing.T, d *db.DB) Repository { return NewDirectRepository(d) },
		"postgres": func(_ *testing.T, d *db.DB) Repository { return NewPostgresRepository(d) },
	}
	for _, stage := range []rollout.Stage{rollout.Direct, rollout.Shadow, rollout.Repository} {
		rungs["switch/"+string(stage)] = func(_ *testing.T, d *db.DB) Repository { return newSwitch(d, stage) }
	}
	for name, configure := range cachetest.Deployments(t) {
		rungs["switch/cached/"+name] = func(t *testing.T, d *db.DB) Repository { return newCached(t, d, configure) }
	}
	for name, open := range rungs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := openDB(t)
			testRepository(t, d, open(t, d))
		})
	}
}

func openDB(t testing.TB) *db.DB {
	t.Helper()
	return cachetest.OpenDB(t, Migrations())
}

// newSwitch returns the ladder at a stage below the cache.
func newSwitch(d *db.DB, stage rollout.Stage) *SwitchRepository {
	return NewSwitchRepository(&rollout.Ladder[Repository]{
		DB: d, Stage: stage, Direct: NewDirectRepository(d), Repository: NewPostgresRepository(d),
	})
}

// newCached returns the ladder at its top, over a cache of its own.
func newCached(t testing.TB, d *db.DB, configure func(*cache.Config)) *SwitchRepository {
	t.Helper()
	c, _ := cachetest.Start(t, d, configure)
	postgres := NewPostgresRepository(d)
	return NewSwitchRepository(&rollout.Ladder[Repository]{
		DB: d, Stage: rollout.Cached, Direct: NewDirectRepository(d), Repository: postgres,
		Cached: NewCacheRepository(postgres, c), Cache: c,
	})
}

func testRepository(t *testing.T, d *db.DB, r Repository) {
	for name, test := range map[string]func(*testing.T, *db.DB, Repository){
		"CreateDefinition": testCreateDefinition, "UpdateDefinition": testUpdateDefinition,
		"DeleteDefinition": testDeleteDefinition, "Values": testValues, "UpdateConcurrently": testUpdateConcurrently,
		"EachValue": testEachValue, "LockDefinitions": testLockDefinitions, "Transaction": testTransaction,
	} {
		t.Run(name, func(t *testing.T) {
			empty(t, d, r)
			test(t, d, r)
		})
	}
}

// empty takes away what another test has left. Definitions have to go by the repository, which may know them by heart.
func empty(t *testing.T, d *db.DB, r Repository) {
	t.Helper()
	if _, err := d.SQL().ExecContext(t.Context(), `TRUNCATE user_preferences, user_preference_values`); err != nil {
		t.Fatal(err)
	}
	left, err := NewDirectRepository(d).Definitions(t.Context())
	wantError(t, "Definitions", err, nil)
	for _, definition := range left.Definitions {
		wantError(t, "delete", r.DeleteDefinition(t.Context(), definition.Key), nil)
	}
}

func mustDefine(t testing.TB, r Repository, key, schema, value string) Definition {
	t.Helper()
	d, created, err := r.CreateDefinition(t.Context(), Definition{
		Key: key, Schema: json.RawMessage(schema), Default: json.RawMessage(value), Description: "What it is for.",
	})
	if err != nil || !created {
		t.Fatalf("create %s: %v, %v", key, created, err)
	}
	return d
}

// mustSet stores values as they are; an empty one takes the value away.
func mustSet(t testing.TB, r Repository, userID uuid.UUID, values map[string]string) Values {
	t.Helper()
	v, err := r.UpdateValues(t.Context(), userID, func(v *Values) error {
		for key, value := range values {
			v.set(key, json.RawMessage(value))
			if value == "" {
				v.unset(key)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || (want == nil) != (err == nil) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func wantValues(t *testing.T, what string, got Values, version int64, set map[string]string) {
	t.Helper()
	texts := map[string]string{}
	for _, value := range got.Set {
		texts[value.Key] = string(value.JSON)
	}
	if got.Version != version || !maps.Equal(texts, set) {
		t.Errorf("%s: version %d of %v, want version %d of %v", what, got.Version, texts, version, set)
	}
}

func testCreateDefinition(t *testing.T, _ *db.DB, r Repository) {
	ctx := t.Context()
	empty, err := r.Definitions(ctx)
	wantError(t, "no definitions", err, nil)
	// Not as jsonb would have it: the order of members, and a number written out in full.
	d := mustDefine(t, r, "theme", `{"type":["string","number"],"maximum":1e300}`, `"light"`)
	if d.Version != 1 || d.CreatedAt.IsZero() || !d.UpdatedAt.Equal(d.CreatedAt) || d.Description != "What it is for." ||
		string(d.Schema) != `{"type":["string","number"],"maximum":1e300}` || string(d.Default) != `"light"` {
		t.Errorf("created %+v", d)
	}
	_, created, err := r.CreateDefinition(ctx, d)
	wantError(t, "a key that is taken", err, nil)
	if created {
		t.Error("a key was created twice")
	}
	for _, key := range []string{"a_b", "a.b", "a-b", "a0"} {
		mustDefine(t, r, key, `{}`, `1`)
	}
	catalogue, err := r.Definitions(ctx)
	wantError(t, "Definitions", err, nil)
	var keys []string
	for _, d := range catalogue.Definitions {
		keys = append(keys, d.Key)
		if found, ok := catalogue.ByKey(d.Key); !ok || found.Key != d.Key {
			t.Errorf("ByKey(%s) = %v, %v", d.Key, found, ok)
		}
	}
	if !slices.Equal(keys, []string{"a-b", "a.b", "a0", "a_b", "theme"}) {
		t.Errorf("in the order %v", keys)
	}
	if again, _ := r.Definitions(ctx); again.Tag != catalogue.Tag || catalogue.Tag == empty.Tag {
		t.Errorf("tags: %q empty, then %q, read again %q", empty.Tag, catalogue.Tag, again.Tag)
	}
}

func testUpdateDefinition(t *testing.T, _ *db.DB, r Repository) {
	ctx := t.Context()
	d := mustDefine(t, r, "theme", `{"type":"string"}`, `"light"`)
	before, _ := r.Definitions(ctx)
	changed, err := r.UpdateDefinition(ctx, "theme", func(d *Definition) error {
		d.Schema, d.Default, d.Description = json.RawMessage(`{}`), json.RawMessage(`null`), ""
		return nil
	})
	wantError(t, "UpdateDefinition", err, nil)
	if changed.Version != 2 || string(changed.Schema) != `{}` || string(changed.Default) != `null` || changed.Description != "" ||
		!changed.CreatedAt.Equal(d.CreatedAt) || !changed.UpdatedAt.After(d.UpdatedAt) {
		t.Errorf("updated %+v", changed)
	}
	same, err := r.UpdateDefinition(ctx, "theme", func(*Definition) error { return nil })
	wantError(t, "an update that changes nothing", err, nil)
	if same.Version != 2 || !same.UpdatedAt.Equal(changed.UpdatedAt) {
		t.Errorf("an update that changes nothing made %+v", same)
	}
	refused := errors.New("refused")
	_, err = r.UpdateDefinition(ctx, "theme", func(d *Definition) error { d.Description = "x"; return refused })
	wantError(t, "a refused update", err, refused)
	_, err = r.UpdateDefinition(ctx, "nothing", func(*Definition) error { return nil })
	wantError(t, "no such key", err, ErrNotDefined)
	after, _ := r.Definitions(ctx)
	if stored := after.Definitions[0]; !stored.equal(changed) || stored.Version != 2 || after.Tag == before.Tag {
		t.Errorf("stored %+v under the tag %s, before %s", stored, after.Tag, before.Tag)
	}
}

func testDeleteDefinition(t *testing.T, _ *db.DB, r Repository) {
	ctx, user := t.Context(), ids.New()
	mustDefine(t, r, "theme", `{}`, `1`)
	mustSet(t, r, user, map[string]string{"theme": `2`})
	wantError(t, "delete what is in use", r.DeleteDefinition(ctx, "theme"), ErrInUse)
	mustSet(t, r, user, map[string]string{"theme": ``})
	first, _ := r.Definitions(ctx)
	wantError(t, "delete", r.DeleteDefinition(ctx, "theme"), nil)
	wantError(t, "delete again", r.DeleteDefinition(ctx, "theme"), ErrNotDefined)
	mustDefine(t, r, "theme", `{}`, `1`)
	if second, _ := r.Definitions(ctx); second.Tag == first.Tag {
		t.Error("a definition that was deleted and made again has the tag of the first")
	}
}

func testValues(t *testing.T, _ *db.DB, r Repository) {
	ctx, user, other := t.Context(), ids.New(), ids.New()
	mustDefine(t, r, "theme", `{}`, `1`)
	mustDefine(t, r, "size", `{}`, `1`)
	v, err := r.Values(ctx, user)
	wantError(t, "Values of nobody", err, nil)
	wantValues(t, "of nobody", v, 0, map[string]string{})

	v = mustSet(t, r, user, map[string]string{"theme": `{"b":1e300,"a":null}`, "size": `null`})
	wantValues(t, "first", v, 1, map[string]string{"theme": `{"b":1e300,"a":null}`, "size": `null`})
	mustSet(t, r, other, map[string]string{"size": `3`})
	v = mustSet(t, r, user, map[string]string{"theme": `"dark"`, "size": ``})
	wantValues(t, "changed", v, 2, map[string]string{"theme": `"dark"`})
	v = mustSet(t, r, user, map[string]string{"theme": `"dark"`, "size": ``})
	wantValues(t, "the same again", v, 2, map[string]string{"theme": `"dark"`})

	refused := errors.New("refused")
	_, err = r.UpdateValues(ctx, user, func(v *Values) error { v.set("size", json.RawMessage(`9`)); return refused })
	wantError(t, "a refused update", err, refused)
	_, err = r.UpdateValues(ctx, user, func(v *Values) error { v.set("nothing", json.RawMessage(`9`)); return nil })
	wantError(t, "a key without a definition", err, ErrNotDefined)
	v, err = r.Values(ctx, user)
	wantError(t, "Values", err, nil)
	wantValues(t, "stored", v, 2, map[string]string{"theme": `"dark"`})

	v = mustSet(t, r, user, map[string]string{"theme": ``})
	wantValues(t, "nothing set", v, 3, map[string]string{})
	v, _ = r.Values(ctx, user)
	wantValues(t, "nothing stored", v, 3, map[string]string{})

	wantError(t, "DeleteValues", r.DeleteValues(ctx, other), nil)
	wantError(t, "DeleteValues again", r.DeleteValues(ctx, other), nil)
	v, _ = r.Values(ctx, other)
	wantValues(t, "deleted", v, 0, map[string]string{})
}

// testUpdateConcurrently loses no update: mutate always sees the latest committed state, also of the first value.
func testUpdateConcurrently(t *testing.T, _ *db.DB, r Repository) {
	user := ids.New()
	mustDefine(t, r, "count", `{}`, `0`)
	const writers = 8
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			_, err := r.UpdateValues(t.Context(), user, func(v *Values) error {
				n := 0
				if text, ok := v.get("count"); ok {
					if err := json.Unmarshal(text, &n); err != nil {
						return err
					}
				}
				v.set("count", json.RawMessage(strconv.Itoa(n+1)))
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	v, _ := r.Values(t.Context(), user)
	wantValues(t, "after all", v, writers, map[string]string{"count": strconv.Itoa(writers)})
}

func testEachValue(t *testing.T, _ *db.DB, r Repository) {
	ctx := t.Context()
	mustDefine(t, r, "theme", `{}`, `1`)
	mustDefine(t, r, "size", `{}`, `1`)
	for _, value := range []string{`"dark"`, `"dark"`, `1.0`, `1`} {
		mustSet(t, r, ids.New(), map[string]string{"theme": value, "size": `7`})
	}
	got := map[string]int64{}
	err := r.EachValue(ctx, "theme", func(value json.RawMessage, users int64) error {
		got[string(value)] += users
		return nil
	})
	wantError(t, "EachValue", err, nil)
	if want := map[string]int64{`"dark"`: 2, `1.0`: 1, `1`: 1}; !maps.Equal(got, want) {
		t.Errorf("values %v, want %v", got, want)
	}
	enough := errors.New("enough")
	visits := 0
	err = r.EachValue(ctx, "theme", func(json.RawMessage, int64) error { visits++; return enough })
	wantError(t, "a visit that fails", err, enough)
	if visits != 1 {
		t.Errorf("%d visits after the one that failed", visits-1)
	}
}

// testLockDefinitions lets those who write values pass each other, and holds up who changes the definition until they
// have committed; others may be changed meanwhile.
func testLockDefinitions(t *testing.T, d *db.DB, r Repository) {
	mustDefine(t, r, "theme", `{}`, `1`)
	mustDefine(t, r, "size", `{}`, `1`)
	changed := make(chan error, 1)
	var released atomic.Bool
	err := d.InTx(t.Context(), func(ctx context.Context) error {
		if err := r.LockDefinitions(ctx, []string{"theme", "nothing"}); err != nil {
			return err
		}
		if err := d.InTx(t.Context(), func(ctx context.Context) error { return r.LockDefinitions(ctx, []string{"theme"}) }); err != nil {
			return err
		}
		if _, err := r.UpdateDefinition(t.Context(), "size", func(d *Definition) error { d.Description = ""; return nil }); err != nil {
			return err
		}
		go func() {
			_, err := r.UpdateDefinition(t.Context(), "theme", func(*Definition) error {
				if !released.Load() {
					return errors.New("the definition was not held")
				}
				return nil
			})
			changed <- err
		}()
		waitForLock(t, d)
		released.Store(true)
		return nil
	})
	wantError(t, "holder", err, nil)
	wantError(t, "who waits", <-changed, nil)
}

// waitForLock returns once a connection to the database waits for a lock.
func waitForLock(t *testing.T, d *db.DB) {
	t.Helper()
	for waiting := false; !waiting; {
		row := d.SQL().QueryRowContext(t.Context(), `SELECT EXISTS (
			SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`)
		if err := row.Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
}

func testTransaction(t *testing.T, d *db.DB, r Repository) {
	ctx, user := t.Context(), ids.New()
	rollback := errors.New("rollback")
	err := d.InTx(ctx, func(ctx context.Context) error {
		if _, _, err := r.CreateDefinition(ctx, Definition{Key: "theme", Schema: json.RawMessage(`{}`), Default: json.RawMessage(`1`)}); err != nil {
			return err
		}
		if _, err := r.UpdateValues(ctx, user, func(v *Values) error { v.set("theme", json.RawMessage(`2`)); return nil }); err != nil {
			return err
		}
		return rollback
	})
	wantError(t, "transaction", err, rollback)
	catalogue, _ := r.Definitions(ctx)
	v, _ := r.Values(ctx, user)
	if len(catalogue.Definitions) != 0 || v.Version != 0 {
		t.Errorf("left behind: %v, %v", catalogue, v)
	}
}

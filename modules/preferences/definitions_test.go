package preferences

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/rollout"
)

func TestDefinitions(t *testing.T) {
	w, ctx := newWorld(t, rollout.Repository), t.Context()
	_, created, err := w.put("theme", ` { "type" : "string" } `, `"light"`)
	if err != nil || !created {
		t.Fatalf("created %v, %v", created, err)
	}
	w.wantEvents("creation", "preference_definition.created preference_definition:theme")
	d, created, err := w.put("theme", `{"type":"string"}`, `"light"`)
	if err != nil || created || d.Version != 1 || string(d.Schema) != `{"type":"string"}` {
		t.Errorf("the same again: %+v, created %v, %v", d, created, err)
	}
	w.wantEvents("the same again")
	if d = w.define("theme", `{}`, `"dark"`); d.Version != 2 {
		t.Errorf("replaced: %+v", d)
	}
	w.wantEvents("replacement", "preference_definition.updated preference_definition:theme [schema default]")

	for name, c := range map[string]struct {
		key, schema, value string
		want               []string
	}{
		"key":        {"Theme", `{}`, `1`, []string{"key format"}},
		"long key":   {strings.Repeat("k", 65), `{}`, `1`, []string{"key format"}},
		"schema":     {"k", `{"type":1}`, `1`, []string{"/schema/type not_allowed"}},
		"default":    {"k", `{"type":"string"}`, `1`, []string{"/default type"}},
		"both":       {"k", `[]`, `1e999`, []string{"/default out_of_range", "/schema type"}},
		"neither":    {"k", ``, ``, []string{"/default required", "/schema required"}},
		"too large":  {"k", `{"title":"` + strings.Repeat("x", MaxSchema) + `"}`, `"` + strings.Repeat("x", MaxDefault) + `"`, []string{"/default too_long", "/schema too_long"}},
		"not bounds": {"k", `{"minimum":1e-999999999}`, `1`, []string{"/schema out_of_range"}},
	} {
		_, _, err := w.put(c.key, c.schema, c.value)
		wantError(t, name, err, errs.ErrInvalid)
		if got := fields(err); !slices.Equal(got, c.want) {
			t.Errorf("%s: violations %q, want %q", name, got, c.want)
		}
	}
	_, _, err = w.Service.PutDefinition(ctx, "k", NewDefinition{
		Schema: json.RawMessage(`{}`), Default: json.RawMessage(`1`), Description: strings.Repeat("é", MaxDescription+1),
	}, anyVersion)
	if got := fields(err); !slices.Equal(got, []string{"/description too_long"}) {
		t.Errorf("a long description: %q", got)
	}
	w.wantEvents("refusals")
}

func TestDefinitionGuard(t *testing.T) {
	w, ctx := newWorld(t, rollout.Repository), t.Context()
	stale := errs.New(errs.Precondition, "stale", "")
	only := func(want int64) DefinitionGuard {
		return func(version int64) error {
			if version != want {
				return stale
			}
			return nil
		}
	}
	in := NewDefinition{Schema: json.RawMessage(`{}`), Default: json.RawMessage(`1`)}
	_, _, err := w.Service.PutDefinition(ctx, "k", in, only(1))
	wantError(t, "replace what does not exist", err, stale)
	if c, _ := w.Service.Definitions(ctx); len(c.Definitions) != 0 {
		t.Error("a refused creation left a definition")
	}
	_, _, err = w.Service.PutDefinition(ctx, "k", in, only(0))
	wantError(t, "create", err, nil)
	_, _, err = w.Service.PutDefinition(ctx, "k", in, only(0))
	wantError(t, "create what exists", err, stale)
	wantError(t, "delete another version", w.Service.DeleteDefinition(ctx, "k", only(2)), stale)
	wantError(t, "delete", w.Service.DeleteDefinition(ctx, "k", only(1)), nil)
	wantError(t, "delete again", w.Service.DeleteDefinition(ctx, "k", only(1)), ErrNotDefined)
}

func TestDefinitionChangesThatBreakValues(t *testing.T) {
	w := newWorld(t, rollout.Repository)
	w.define("size", `{"type":"integer"}`, `1`)
	users := []uuid.UUID{w.person(), w.person(), w.person()}
	for i, user := range users {
		wantError(t, "patch", w.patch(user, fmt.Sprintf(`{"size":%d}`, 10+i/2)), nil) // 10, 10, 11
	}
	w.journal.take()
	_, _, err := w.put("size", `{"type":"integer","minimum":11}`, `12`)
	wantError(t, "a schema that breaks values", err, ErrBreaks)
	if !strings.Contains(errs.From(err).Message, "2 stored values") {
		t.Errorf("their number is not told: %s", errs.From(err).Message)
	}
	err = w.Service.DeleteDefinition(t.Context(), "size", anyVersion)
	wantError(t, "delete what is in use", err, ErrInUse)
	if !strings.Contains(errs.From(err).Message, "3 users") {
		t.Errorf("their number is not told: %s", errs.From(err).Message)
	}
	w.wantEvents("refusals")
	w.want("after refusals", users[0], `size*=10`)
	w.define("size", `{"type":"integer","minimum":10}`, `10`)
	for _, user := range users {
		wantError(t, "reset", w.patch(user, `{"size":null}`), nil)
	}
	wantError(t, "delete", w.Service.DeleteDefinition(t.Context(), "size", anyVersion), nil)
	w.want("after all", users[0])
}

func TestLimits(t *testing.T) {
	w, ctx := newWorld(t, rollout.Direct), t.Context()
	for i := range MaxDefinitions {
		if _, _, err := w.Service.repo.CreateDefinition(ctx, Definition{
			Key: fmt.Sprintf("k%d", i), Schema: json.RawMessage(`{}`), Default: json.RawMessage(`0`),
		}); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := w.put("one-more", `{}`, `1`)
	wantError(t, "one definition too many", err, ErrTooMany)
	w.define("k0", `{}`, `2`)

	user := w.person()
	half := strings.Repeat("x", MaxValues/2-len(`{"k0":"","k1":"`))
	wantError(t, "half", w.patch(user, `{"k0":"`+half+`"}`), nil)
	wantError(t, "nearly all", w.patch(user, `{"k1":"`+half+`"}`), nil)
	wantError(t, "too much", w.patch(user, `{"k2":"`+strings.Repeat("x", 100)+`"}`), ErrTooLarge)
	wantError(t, "in place of another", w.patch(user, `{"k1":null,"k2":"`+half+`"}`), nil)
	if v, _ := w.Service.repo.Values(ctx, user); v.size() > MaxValues || len(v.Set) != 2 {
		t.Errorf("%d bytes of %d values", v.size(), len(v.Set))
	}
}

package rollout

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/open-feature/go-sdk/openfeature"
	"github.com/open-feature/go-sdk/openfeature/memprovider"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// flag is an in-memory provider's flag set with one flag for the module users.
func flag(value any) map[string]memprovider.InMemoryFlag {
	return map[string]memprovider.InMemoryFlag{FlagPrefix + "users": {
		State: memprovider.Enabled, DefaultVariant: "on", Variants: map[string]any{"on": value},
	}}
}

func object(stage Stage, percent float64) map[string]any {
	return map[string]any{"stage": string(stage), "percent": percent}
}

// newProvider registers a provider for this test alone.
func newProvider(t *testing.T) (*memprovider.InMemoryProvider, *FlagSource) {
	t.Helper()
	provider := memprovider.NewInMemoryProvider(nil)
	if err := openfeature.SetNamedProviderAndWait(t.Name(), provider); err != nil {
		t.Fatal(err)
	}
	return provider, NewFlagSource(openfeature.NewClient(t.Name()))
}

func TestStagesFollowFlags(t *testing.T) {
	provider, flags := newProvider(t)
	i := newFlagged(t, dbtest.Open(t, Migrations()), Setting{Direct, Whole}, flags)
	follow := func(value any, want Setting) {
		t.Helper()
		if value != nil {
			provider.UpdateFlags(flag(value))
		}
		if err := i.poll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := i.users.Setting(); got != want {
			t.Errorf("flag %v: the module is at %v, want %v", value, got, want)
		}
	}
	follow(nil, Setting{Direct, Whole}) // no flag
	follow(object(Repository, 5), Setting{Repository, 500})
	history, err := i.History(t.Context(), "users", 0, 10)
	if err != nil || len(history) != 3 || history[1].Setting != (Setting{Shadow, Whole}) || history[0].Actor != Flags {
		t.Errorf("history %+v, %v", history, err)
	}
	if err := i.Change(t.Context(), Change{Module: "users", To: Setting{Shadow, Whole}}); !errors.Is(err, ErrManagedElsewhere) {
		t.Errorf("a move beside the flags: %v", err)
	}
	follow(object("broken", 5), Setting{Repository, 500})
	if !i.log.contains("a flag cannot be read") {
		t.Error("the log does not tell of the broken flag")
	}

	i.users.counters.compare("ByID", false)
	follow(object(Repository, 5), Setting{Shadow, Whole}) // the guard
	follow(nil, Setting{Shadow, Whole})                   // which the flag, unchanged, does not undo
	follow(object(Repository, 6), Setting{Repository, 600})
	follow(map[string]any{"stage": "direct"}, Setting{Direct, Whole})
}

func TestFlagsThatSayNothing(t *testing.T) {
	for want, value := range map[string]any{
		"must be an object":              "shadow",
		"stage: must be text":            map[string]any{"percent": 5},
		"stage: must be one of":          object("somewhere", 5),
		"percent: must be a number":      map[string]any{"stage": "shadow", "percent": "5"},
		"percent: must lie in [0, 100]":  object(Shadow, 101),
		"percent: must lie in [0, 100] ": object(Shadow, -1),
	} {
		if s, err := parseFlag(value); err == nil || !strings.Contains(fmt.Sprint(err), strings.TrimSpace(want)) {
			t.Errorf("%v: %v, %v; want %q", value, s, err, want)
		}
	}
}

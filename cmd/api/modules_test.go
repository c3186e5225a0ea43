package main

import (
	"bytes"
	"context"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/strata-accounts/strata/platform/db/dbtest"
	"github.com/strata-accounts/strata/platform/rollout"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

// unaudited is a rollout.Auditor without a log.
type unaudited struct{}

func (unaudited) Record(context.Context, string, string, []string, map[string]any) error { return nil }

// TestModulesCommand moves a module of a server, and follows it.
func TestModulesCommand(t *testing.T) {
	d := dbtest.Open(t, rollout.Migrations())
	registry, err := rollout.New(rollout.Defaults(), rollout.Deps{
		DB: d, Auditor: unaudited{}, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Add("users", rollout.Spec{Initial: rollout.NewSetting(rollout.Direct, 100)}); err != nil {
		t.Fatal(err)
	}
	if err := registry.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := webtest.NewServer(t, d)
	registry.Routes(server.API())
	listener := httptest.NewServer(server.Handler())
	t.Cleanup(listener.Close)
	run := func(ctx context.Context, args ...string) (string, error) {
		var out bytes.Buffer
		c := modulesCommand(func() (modulesClient, error) { return modulesClient{listener.URL, webtest.RootKey}, nil })
		c.SetArgs(args)
		c.SetOut(&out)
		c.SetErr(&out)
		err := c.ExecuteContext(ctx)
		return out.String(), err
	}
	tests := []struct {
		args, want, failure string
	}{
		{"list", "users   direct  100      1/1", ""},
		{"set users shadow 12.5% --reason test", "users   shadow  12.5     1/1", ""},
		{"set users cached --reason test", "", "stage_not_adjacent"},
		{"set users repository 101 --reason test", "", "/percent"},
		{"set users repository five --reason test", "", "percent: must be a number"},
		{"set users repository", "", "required flag"},
		{"set orders shadow --reason test", "", "module_not_found"},
		{"watch --interval 1ms", "", "at least 100ms"},
		{"list", "users: 0 of 30000 comparisons have been made.", ""},
	}
	for _, tt := range tests {
		out, err := run(t.Context(), strings.Fields(tt.args)...)
		switch {
		case tt.failure == "" && err != nil, tt.failure != "" && (err == nil || !strings.Contains(err.Error(), tt.failure)):
			t.Errorf("%s: %v, want %q", tt.args, err, tt.failure)
		case !strings.Contains(out, tt.want):
			t.Errorf("%s: want %q in\n%s", tt.args, tt.want, out)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if out, err := run(ctx, "watch", "--interval", "100ms"); err != nil || strings.Count(out, "shadow") < 2 {
		t.Errorf("watch: %v\n%s", err, out)
	}
}

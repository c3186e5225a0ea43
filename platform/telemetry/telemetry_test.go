package telemetry_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/strata-accounts/strata/platform/telemetry"
)

func TestLoggerRedacts(t *testing.T) {
	const secret = "hunter2hunter2"
	for _, format := range []string{"json", "text"} {
		t.Run(format, func(t *testing.T) {
			var out bytes.Buffer
			log, err := telemetry.NewLogger(format, "info", &out)
			if err != nil {
				t.Fatal(err)
			}
			log.Info("m", "password", secret, "new_password", secret, "Authorization", "Bearer "+secret,
				"session_token", []byte(secret), "client_secret", errors.New(secret), "email", secret,
				slog.Group("cookie", "value", secret), slog.Group("a", "token", secret), "kept", "value-kept")
			log.With("token", secret).WithGroup("credentials").Info("m", "any", secret)
			if got := out.String(); strings.Contains(got, secret) || !strings.Contains(got, "value-kept") {
				t.Errorf("log is\n%s\nwant no %q and value-kept", got, secret)
			}
		})
	}
}

func TestLoggerAddsContextAttributes(t *testing.T) {
	type key struct{}
	var out bytes.Buffer
	log, err := telemetry.NewLogger("text", "warn", &out, func(ctx context.Context) []slog.Attr {
		id, _ := ctx.Value(key{}).(string)
		return []slog.Attr{slog.String("request_id", id)}
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.WithValue(t.Context(), key{}, "r-1")
	log.InfoContext(ctx, "below the level")
	log.With("a", 1).WarnContext(ctx, "shown")
	if got := out.String(); strings.Contains(got, "below") || !strings.Contains(got, "request_id=r-1") {
		t.Errorf("log is %q, want the warning alone, with request_id=r-1", got)
	}
}

func TestNewLoggerRefusesUnknownSettings(t *testing.T) {
	for _, c := range [][2]string{{"xml", "info"}, {"json", "loud"}} {
		if _, err := telemetry.NewLogger(c[0], c[1], &bytes.Buffer{}); err == nil {
			t.Errorf("NewLogger(%q, %q) succeeded", c[0], c[1])
		}
	}
}

func TestRegistryTellsAboutTheRuntime(t *testing.T) {
	families, err := telemetry.NewRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "go_goroutines" {
			return
		}
	}
	t.Error("go_goroutines is missing")
}

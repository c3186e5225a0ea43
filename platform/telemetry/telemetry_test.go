package telemetry_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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
			log.With("token", secret).WithGroup("credentials").Info("m", "any", secret, slog.Group("g", "b", secret))
			log.WithGroup("a").WithGroup("cookies").With("b", secret).Info("m")
			log.Info("m", "lazy", valuer{slog.GroupValue(slog.String("API_KEY", secret))}, slog.Group("a", slog.Group("b", "e-mail-or-EMAIL", secret)))
			if got := out.String(); strings.Contains(got, secret) || !strings.Contains(got, "value-kept") {
				t.Errorf("log is\n%s\nwant no %q and value-kept", got, secret)
			}
		})
	}
}

type valuer struct{ v slog.Value }

func (v valuer) LogValue() slog.Value { return v.v }

// written tells each write apart.
type written struct {
	mu     sync.Mutex
	writes []string
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes = append(w.writes, string(p))
	return len(p), nil
}

func (w *written) get() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.writes)
}

func TestBufferWritesInOrderAndInTheEnd(t *testing.T) {
	var out written
	buffer := telemetry.NewBuffer(&out)
	log, err := telemetry.NewLogger("text", "info", buffer)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("first")
	log.With("a", 1).Warn("second")
	if got := strings.Join(out.get(), ""); !strings.Contains(got, "first") || !strings.Contains(got, "second") {
		t.Errorf("after a warning there is %q, want it and the line before it", got)
	}
	log.Info("third")
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(strings.Join(out.get(), ""), "third"); {
		if time.Now().After(deadline) {
			t.Fatal("the third line was never written")
		}
		time.Sleep(time.Millisecond)
	}
	before := len(out.get())
	for range 4000 {
		log.Info("many")
	}
	buffer.Flush()
	all := out.get()
	if n := strings.Count(strings.Join(all, ""), "many"); n != 4000 {
		t.Errorf("%d lines of 4000", n)
	}
	if writes := len(all) - before; writes > 400 {
		t.Errorf("%d writes for 4000 lines", writes)
	}
	for _, w := range all {
		if !strings.HasSuffix(w, "\n") {
			t.Errorf("a write ends within a line: %q", w[max(0, len(w)-80):])
		}
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

// TestVettedStillRedactsWhatItWasGiven: a line of the access log is not looked at, what all such lines share is.
func TestVettedStillRedactsWhatItWasGiven(t *testing.T) {
	var out bytes.Buffer
	log, err := telemetry.NewLogger("json", "info", &out)
	if err != nil {
		t.Fatal(err)
	}
	vetted := slog.New(telemetry.Vetted(log.With("email", "ada@example.com").Handler()))
	vetted.Info("request", "status", 200)
	if got := out.String(); strings.Contains(got, "ada@") || !strings.Contains(got, `"status":200`) {
		t.Errorf("log is %q, want the status, and no address", got)
	}
	if other := slog.DiscardHandler; telemetry.Vetted(other) != other {
		t.Error("another handler has changed")
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

package telemetry_test

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/strata-accounts/strata/platform/telemetry"
)

// BenchmarkAccessLine is a line such as every request writes; the floor is slog's own handler, which redacts nothing.
func BenchmarkAccessLine(b *testing.B) {
	log, err := telemetry.NewLogger("json", "info", discard{}, func(context.Context) []slog.Attr {
		return []slog.Attr{slog.String("request_id", "4bf92f3577b34da6a3ce929d0e0e4736")}
	})
	if err != nil {
		b.Fatal(err)
	}
	for name, l := range map[string]*slog.Logger{"strata": log, "floor: slog": slog.New(slog.NewJSONHandler(discard{}, nil))} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l.LogAttrs(b.Context(), slog.LevelInfo, "request",
					slog.String("method", "GET"), slog.String("route", "/v1/sessions/current"), slog.Int("status", 200),
					slog.Duration("duration", time.Millisecond), slog.Int("bytes", 680),
					slog.String("caller", "user_01h455vb4pex5vsknk084sn02q"), slog.String("ip", "127.0.0.1"))
			}
		})
	}
}

// discard is not io.Discard, for which slog does not even format.
type discard struct{ io.Writer }

func (discard) Write(p []byte) (int, error) { return len(p), nil }

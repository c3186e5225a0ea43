// Package telemetry makes the logger and the metrics registry that the whole program shares.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
)

// Redacted stands in logs where a secret or personal value would.
const Redacted = "[redacted]"

// sensitive are the parts of attribute names whose values are never logged.
var sensitive = []string{"password", "passwd", "secret", "token", "authorization", "credential", "cookie", "api_key", "email"}

// ContextAttrs returns attributes that every record logged under a context carries, such as the request's id.
type ContextAttrs func(ctx context.Context) []slog.Attr

// NewLogger returns a logger that writes records of at least level ("debug", "info", "warn", "error") to w, one a line,
// in format ("json" or "text"). Values of attributes whose name, or whose group's name, says password, token, e-mail or
// the like are replaced by Redacted.
func NewLogger(format, level string, w io.Writer, attrs ...ContextAttrs) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{ReplaceAttr: redact}
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: use debug, info, warn or error", level)
	}
	opts.Level = l
	var h slog.Handler
	switch format {
	case "json":
		h = slog.NewJSONHandler(w, opts)
	case "text":
		h = slog.NewTextHandler(w, opts)
	default:
		return nil, fmt.Errorf("log format %q: use json or text", format)
	}
	return slog.New(contextHandler{h, attrs}), nil
}

func redact(groups []string, a slog.Attr) slog.Attr {
	if isSensitive(a.Key) || slices.ContainsFunc(groups, isSensitive) {
		return slog.String(a.Key, Redacted)
	}
	return a
}

func isSensitive(key string) bool {
	key = strings.ToLower(key)
	return slices.ContainsFunc(sensitive, func(s string) bool { return strings.Contains(key, s) })
}

// contextHandler adds what the context of a record says.
type contextHandler struct {
	slog.Handler
	attrs []ContextAttrs
}

// Handle implements slog.Handler.
func (h contextHandler) Handle(ctx context.Context, r slog.Record) error {
	for _, attrs := range h.attrs {
		r.AddAttrs(attrs(ctx)...)
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h contextHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return contextHandler{h.Handler.WithAttrs(attrs), h.attrs}
}

// WithGroup implements slog.Handler.
func (h contextHandler) WithGroup(name string) slog.Handler {
	return contextHandler{h.Handler.WithGroup(name), h.attrs}
}

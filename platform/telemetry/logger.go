// Package telemetry makes the logger and the metrics registry that the whole program shares.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// Redacted stands in logs where a secret or personal value would.
const Redacted = "[redacted]"

// sensitive are the parts of attribute names whose values are never logged, by their first letter.
var sensitive = [256][]string{
	'a': {"authorization", "api_key"},
	'c': {"credential", "cookie"},
	'e': {"email"},
	'p': {"password", "passwd"},
	's': {"secret"},
	't': {"token"},
}

// ContextAttrs returns attributes that every record logged under a context carries, such as the request's id.
type ContextAttrs func(ctx context.Context) []slog.Attr

// NewLogger returns a logger that writes records of at least level ("debug", "info", "warn", "error") to w, one a line,
// in format ("json" or "text"). Values of attributes whose name, or whose group's name, says password, token, e-mail or
// the like are replaced by Redacted. Where w is a Buffer, warnings and errors do not wait in it.
func NewLogger(format, level string, w io.Writer, attrs ...ContextAttrs) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{}
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
	flush := func() {}
	if b, ok := w.(*Buffer); ok {
		flush = b.Flush
	}
	return slog.New(handler{Handler: h, attrs: attrs, flush: flush}), nil
}

// handler adds what the context of a record says, and redacts. It looks at names before it hands a record on, and makes
// another only where there is something to redact: slog's ReplaceAttr, called for each attribute of each line, is three
// times as dear as all the rest.
type handler struct {
	slog.Handler
	attrs  []ContextAttrs
	flush  func()
	secret bool // in a group whose name is sensitive
}

// Handle implements slog.Handler.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	for _, attrs := range h.attrs {
		r.AddAttrs(attrs(ctx)...)
	}
	clean := true
	r.Attrs(func(a slog.Attr) bool {
		clean = !h.secret && isClean(a)
		return clean
	})
	if !clean {
		r = h.redacted(r)
	}
	err := h.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn {
		h.flush()
	}
	return err
}

// WithAttrs implements slog.Handler.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.Handler = h.Handler.WithAttrs(h.redactAll(attrs))
	return h
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler {
	h.Handler, h.secret = h.Handler.WithGroup(name), h.secret || isSensitive(name)
	return h
}

// Vetted returns the handler for records that are known to hold nothing to redact and to need no context, such as the
// access log's: looking at their names is a sixth of what such a line takes. What h has been given by WithAttrs is
// redacted as ever.
func Vetted(h slog.Handler) slog.Handler {
	if own, ok := h.(handler); ok {
		return own.Handler
	}
	return h
}

func (h handler) redacted(r slog.Record) slog.Record {
	out := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(redact(a, h.secret))
		return true
	})
	return out
}

func (h handler) redactAll(attrs []slog.Attr) []slog.Attr {
	out := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		out[i] = redact(a, h.secret)
	}
	return out
}

// redact replaces the value of an attribute that is secret by its name or by a group's; secret says that a group's is.
func redact(a slog.Attr, secret bool) slog.Attr {
	secret = secret || isSensitive(a.Key)
	value := a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		members := make([]slog.Attr, len(value.Group()))
		for i, member := range value.Group() {
			members[i] = redact(member, secret)
		}
		return slog.Attr{Key: a.Key, Value: slog.GroupValue(members...)}
	}
	if secret {
		return slog.String(a.Key, Redacted)
	}
	return slog.Attr{Key: a.Key, Value: value}
}

// isClean reports whether there is surely nothing to redact.
func isClean(a slog.Attr) bool {
	kind := a.Value.Kind()
	return kind != slog.KindGroup && kind != slog.KindLogValuer && !isSensitive(a.Key)
}

// isSensitive reports whether a name contains one of the sensitive parts, in any case.
func isSensitive(name string) bool {
	for i := range len(name) {
		for _, part := range sensitive[name[i]|0x20] {
			if len(name)-i >= len(part) && strings.EqualFold(name[i:i+len(part)], part) {
				return true
			}
		}
	}
	return false
}

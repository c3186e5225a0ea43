package errs

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestError(t *testing.T) {
	declared := New(Conflict, "taken", "It is taken.")
	cause := errors.New("duplicate key")
	derived := fmt.Errorf("create: %w", declared.Wrap(cause).With(Field{Pointer: "/email"}).After(time.Second))
	if !errors.Is(derived, declared) || !errors.Is(derived, cause) || errors.Is(derived, ErrInvalid) {
		t.Error("a derived error is not its declaration and its cause, and nothing else")
	}
	e := From(derived)
	if e.Kind != Conflict || len(e.Fields) != 1 || e.RetryAfter != time.Second || strings.Contains(e.Message, "duplicate") {
		t.Errorf("derived %+v", e)
	}
	if declared.Unwrap() != nil || declared.Fields != nil || declared.RetryAfter != 0 {
		t.Errorf("deriving changed the declaration: %+v", declared)
	}
	if unknown := From(cause); unknown.Kind != Internal || strings.Contains(unknown.Message, "duplicate") || !errors.Is(unknown, cause) {
		t.Errorf("an error of nobody's: %+v", unknown)
	}
	if From(nil) != nil || KindOf(nil) != Internal || KindOf(derived) != Conflict {
		t.Error("From and KindOf")
	}
	if Canceled.String() != "canceled" || Kind(200).String() != "internal" {
		t.Error("names of kinds")
	}
}

// Package errs is the vocabulary in which every layer reports failure: a Kind that says what sort of failure it is, a
// stable code that clients switch on, a message that is safe to show them, and a cause that only the log sees.
//
// Modules declare their errors as package variables (users.ErrEmailTaken); platform/web holds the only table from Kind
// to HTTP status.
package errs

import (
	"errors"
	"fmt"
	"time"
)

// Kind classifies a failure by what the caller can do about it.
type Kind uint8

// The kinds, from "our fault" to "try again".
const (
	Internal        Kind = iota // a defect: nothing the caller can do
	Malformed                   // the request cannot be read at all
	Invalid                     // readable, but members break the rules; see Fields
	Unauthenticated             // no credential, or one that is not valid any more
	Forbidden                   // a valid credential that may not do this
	NotFound                    // no such thing, or not for this caller
	Conflict                    // the state of the resource forbids it
	Precondition                // If-Match does not hold
	TooLarge                    // more bytes than are accepted
	Unsupported                 // a media type that is not accepted
	TooMany                     // a rate limit; see RetryAfter
	Unavailable                 // a dependency is down or busy; see RetryAfter
	Canceled                    // the caller went away
)

var kindNames = [...]string{
	"internal", "malformed", "invalid", "unauthenticated", "forbidden", "not_found", "conflict", "precondition",
	"too_large", "unsupported", "too_many", "unavailable", "canceled",
}

// String implements fmt.Stringer.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "internal"
}

// Field is one violation in a request, located by a JSON pointer (RFC 6901) into the body, or by the name of a
// parameter. It never carries the rejected value.
type Field struct {
	Pointer string // "/email"; empty where Param is set
	Param   string // "limit"; empty where Pointer is set
	Code    string // "required", "too_long", …
	Message string
}

// Error is a failure that a caller may see. Code and Message are safe to show; the cause is not.
type Error struct {
	Kind       Kind
	Code       string
	Message    string
	Fields     []Field
	RetryAfter time.Duration // how long to wait before trying again; 0 means unknown
	cause      error
}

// New declares an error. Use it for package variables; derive from those with Wrap, With and After.
func New(kind Kind, code, message string) *Error {
	return &Error{Kind: kind, Code: code, Message: message}
}

// Error returns the message and, for the log, the cause.
func (e *Error) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.cause)
	}
	return e.Code + ": " + e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is an Error with the same code, so that errors.Is matches derived copies.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Wrap returns a copy of e with a cause.
func (e *Error) Wrap(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// With returns a copy of e with these violations.
func (e *Error) With(fields ...Field) *Error {
	c := *e
	c.Fields = fields
	return &c
}

// Violated returns ErrInvalid with these violations, or nil where there are none.
func Violated(fields []Field) error {
	if len(fields) == 0 {
		return nil
	}
	return ErrInvalid.With(fields...)
}

// After returns a copy of e that asks the caller to wait for d.
func (e *Error) After(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// From returns the Error in err's chain, or an Internal one that wraps err. It returns nil for nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return ErrInternal.Wrap(err)
}

// KindOf returns the kind of the Error in err's chain; Internal where there is none, and for nil.
func KindOf(err error) Kind {
	if e := From(err); e != nil {
		return e.Kind
	}
	return Internal
}

// Errors that belong to no module.
var (
	ErrInternal    = New(Internal, "internal_error", "The server failed to answer. The failure has been logged under this request's id.")
	ErrInvalid     = New(Invalid, "validation_failed", "The request breaks the rules for some of its members.")
	ErrUnavailable = New(Unavailable, "unavailable", "A service this request depends on is not available. Try again.").After(time.Second)
	ErrBusy        = New(Unavailable, "busy", "The server is working at its limit. Try again.").After(time.Second)
	ErrTimeout     = New(Unavailable, "timeout", "The request took longer than is allowed. Try again.").After(time.Second)
	ErrCanceled    = New(Canceled, "canceled", "The request was canceled by its caller.")
)

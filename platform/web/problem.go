package web

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/strata-accounts/strata/platform/errs"
)

// StatusClientClosedRequest is logged, and counted, for requests that their client gave up.
const StatusClientClosedRequest = 499

// statuses is the only place where a Kind becomes an HTTP status.
var statuses = [...]int{
	errs.Internal:        http.StatusInternalServerError,
	errs.Malformed:       http.StatusBadRequest,
	errs.Invalid:         http.StatusUnprocessableEntity,
	errs.Unauthenticated: http.StatusUnauthorized,
	errs.Forbidden:       http.StatusForbidden,
	errs.NotFound:        http.StatusNotFound,
	errs.Conflict:        http.StatusConflict,
	errs.Precondition:    http.StatusPreconditionFailed,
	errs.TooLarge:        http.StatusRequestEntityTooLarge,
	errs.Unsupported:     http.StatusUnsupportedMediaType,
	errs.TooMany:         http.StatusTooManyRequests,
	errs.Unavailable:     http.StatusServiceUnavailable,
	errs.Canceled:        StatusClientClosedRequest,
}

// Problem is the body of every error response (RFC 9457).
type Problem struct {
	Type      string      `json:"type" doc:"Identifies the kind of problem: urn:strata:problem: and the code."`
	Title     string      `json:"title" doc:"The kind of problem in words; the same for every occurrence."`
	Status    int         `json:"status" doc:"The HTTP status."`
	Detail    string      `json:"detail" doc:"What to do about it."`
	Code      string      `json:"code" doc:"The kind of problem for programs; stable."`
	RequestID string      `json:"request_id" doc:"Identifies the request in the server's log."`
	Errors    []Violation `json:"errors,omitempty" nullable:"false" doc:"Every violation that was found."`

	header http.Header
}

// Violation is one rule that a request breaks. It never repeats the rejected value.
type Violation struct {
	Pointer   *string `json:"pointer,omitempty" doc:"JSON pointer (RFC 6901) into the body; empty for the body itself."`
	Parameter string  `json:"parameter,omitempty" doc:"Name of a query, path or header parameter."`
	Code      string  `json:"code" doc:"The rule, for programs; stable."`
	Message   string  `json:"message" doc:"The rule in words."`
}

// Error implements error, for huma.
func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return problemJSON }

const problemJSON = "application/problem+json"

func newProblem(ctx context.Context, status int, code, detail string) *Problem {
	return &Problem{
		Type:      "urn:strata:problem:" + code,
		Title:     title(code),
		Status:    status,
		Detail:    detail,
		Code:      code,
		RequestID: RequestFrom(ctx).ID,
		header:    http.Header{},
	}
}

// title turns a code into words: user_email_taken becomes "User email taken".
func title(code string) string {
	if code == "" {
		return ""
	}
	return strings.ToUpper(code[:1]) + strings.ReplaceAll(code[1:], "_", " ")
}

// httpError is a failure of the protocol itself, for which the domain has no Kind.
type httpError struct {
	status       int
	code, detail string
}

// Error implements error.
func (e *httpError) Error() string { return e.code + ": " + e.detail }

var (
	errNotAcceptable = &httpError{
		http.StatusNotAcceptable, "not_acceptable",
		"This call does not answer with any media type that Accept names.",
	}
	errRequestTimeout = &httpError{
		http.StatusRequestTimeout, "request_timeout",
		"The request's body came too slowly.",
	}
)

// problemOf renders an error for the caller. What is not an *errs.Error is shown as an internal error, or as the end of
// the request's time; the request remembers the cause of anything that is not the caller's doing.
func problemOf(ctx context.Context, err error) *Problem {
	var he *httpError
	if errors.As(err, &he) {
		return newProblem(ctx, he.status, he.code, he.detail)
	}
	e := classify(ctx, err)
	p := newProblem(ctx, statuses[e.Kind], e.Code, e.Message)
	for _, f := range e.Fields {
		v := Violation{Parameter: f.Param, Code: f.Code, Message: f.Message}
		if f.Param == "" {
			v.Pointer = &f.Pointer
		}
		p.Errors = append(p.Errors, v)
	}
	if e.RetryAfter > 0 {
		p.header["Retry-After"] = []string{seconds(e.RetryAfter)}
	}
	r := requestFrom(ctx)
	if r == nil {
		return p
	}
	scope := ""
	if r.route != nil {
		scope = r.route.auth.Scope
	}
	if c := challenge(e, scope); c != "" {
		p.header["Www-Authenticate"] = []string{c}
	}
	if p.Status >= http.StatusInternalServerError {
		r.failure = err
	}
	return p
}

// classify finds the Error that a failure shows to the caller.
func classify(ctx context.Context, err error) *errs.Error {
	var e *errs.Error
	switch {
	case errors.As(err, &e) && e.Kind != errs.Internal:
		return e
	case errors.Is(err, context.Canceled) && errors.Is(ctx.Err(), context.Canceled):
		return errs.ErrCanceled.Wrap(err)
	case errors.Is(err, context.DeadlineExceeded):
		return errs.ErrTimeout.Wrap(err)
	}
	return errs.ErrInternal.Wrap(err) // an Internal error's own words are for the log
}

// seconds renders a duration for Retry-After, rounded up so that nobody comes back too early.
func seconds(d time.Duration) string {
	return strconv.Itoa(int(math.Ceil(d.Seconds())))
}

// abort answers with a problem from outside huma's handlers: the middleware, unknown routes, panics.
func (s *Server) abort(c *gin.Context, p *Problem) {
	h := c.Writer.Header()
	for name, values := range p.header {
		h[name] = values
	}
	c.Abort()
	if err := writeBody(c, p.Status, problemTypes, p); err != nil {
		panic(err) // a Problem has only strings
	}
}

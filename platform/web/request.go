package web

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"

	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
)

// CallerKind says what sort of credential a request carries.
type CallerKind uint8

// The kinds of caller.
const (
	Anonymous CallerKind = iota // no credential, on an operation that needs none
	Key                         // an API key
	Session                     // a session token
)

// String returns the kind's name as audit events and logs show it.
func (k CallerKind) String() string {
	switch k {
	case Key:
		return "api_key"
	case Session:
		return "user"
	default:
		return "anonymous"
	}
}

// Caller is who makes a request, as far as the credential proves it.
type Caller struct {
	Kind      CallerKind
	ID        string    // the key's name, or the user's TypeID; empty for Anonymous
	UserID    uuid.UUID // of a Session
	SessionID uuid.UUID // of a Session
	scopes    scopeSet
}

// Has reports whether the caller's API key grants scope. A session has no scopes.
func (c Caller) Has(scope string) bool { return c.scopes.has(scope) }

// RequestInfo describes a request as audit events and logs record it.
type RequestInfo struct {
	ID        string // X-Request-ID, given or generated
	TraceID   string // of traceparent (W3C Trace Context): 32 hexadecimal digits, or empty
	IP        string // of the client, as far as trusted proxies tell it
	UserAgent string // at most 512 bytes
}

// CallerFrom returns who makes the request that ctx belongs to.
func CallerFrom(ctx context.Context) Caller {
	if r := requestFrom(ctx); r != nil {
		return r.caller
	}
	return Caller{}
}

// Identify notes whose session makes the request that ctx belongs to, where that turns out only while it is served: at a
// sign-in. It does nothing outside of a request.
func Identify(ctx context.Context, userID, sessionID uuid.UUID) {
	if r := requestFrom(ctx); r != nil {
		r.caller = sessionCaller(userID, sessionID)
	}
}

func sessionCaller(userID, sessionID uuid.UUID) Caller {
	return Caller{Kind: Session, ID: ids.Format("user", userID), UserID: userID, SessionID: sessionID}
}

// Keep stores what the SessionVerifier found out about the caller, so that the handler of the request that ctx belongs to
// need not look it up again. It does nothing outside of a request.
func Keep(ctx context.Context, found any) {
	if r := requestFrom(ctx); r != nil {
		r.kept = found
	}
}

// Kept returns what Keep stored, or nil.
func Kept(ctx context.Context) any {
	if r := requestFrom(ctx); r != nil {
		return r.kept
	}
	return nil
}

// RequestFrom describes the request that ctx belongs to; it is zero in background work.
func RequestFrom(ctx context.Context) RequestInfo {
	if r := requestFrom(ctx); r != nil {
		info := r.info
		info.UserAgent = userAgent(header(r.in.Header, "User-Agent"))
		return info
	}
	return RequestInfo{}
}

// NoCache reports whether the request that ctx belongs to asks for an answer from the database (RFC 9111, 5.2.1.4).
func NoCache(ctx context.Context) bool {
	r := requestFrom(ctx)
	return r != nil && r.noCache
}

// request is all that is known of one request. It is itself the request's context, so that one allocation carries
// everything the handlers ask for.
type request struct {
	lazyDeadline
	began      time.Time
	server     *Server
	in         http.Request // the gin context's, as a part of this: one allocation in place of two
	route      *route       // nil until an operation matched
	info       RequestInfo  // but for its UserAgent, which few ask for
	noCache    bool
	caller     Caller
	kept       any          // by the SessionVerifier
	id         [1]string    // the X-Request-Id header of the response
	header     http.Header  // of the response
	violations []errs.Field // that the body's schema found and the operation's own check may add to
	exchange   *exchange    // once it is the first with its Idempotency-Key
	failure    error        // the cause of a 5xx, for the log
}

type requestKey struct{}

// Value implements context.Context.
func (r *request) Value(key any) any {
	if key == (requestKey{}) {
		return r
	}
	return r.lazyDeadline.Value(key)
}

func requestFrom(ctx context.Context) *request {
	r, _ := ctx.Value(requestKey{}).(*request)
	return r
}

// begin attaches a request to the gin context.
func (s *Server) begin(c *gin.Context) *request {
	in := c.Request
	r := &request{server: s, began: time.Now(), header: c.Writer.Header()}
	r.Context = in.Context()
	r.info = RequestInfo{
		ID:      requestID(in.Header),
		TraceID: s.traceID(in),
		IP:      s.clientIP(c),
	}
	r.noCache = asksNoCache(in.Header["Cache-Control"])
	r.in = *in.WithContext(r)
	c.Request = &r.in
	r.id[0] = r.info.ID
	r.header["X-Request-Id"] = r.id[:]
	r.header["Cache-Control"] = noStore
	r.header["X-Content-Type-Options"] = noSniff
	if s.checks.draining.Load() {
		r.header["Connection"] = closing
	}
	return r
}

// asksNoCache looks for a request's no-cache directive (RFC 9111, 5.2).
func asksNoCache(lines []string) bool {
	for _, line := range lines {
		for directive := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(directive), "no-cache") {
				return true
			}
		}
	}
	return false
}

// header is Get for a name in canonical form, which it need not look at.
func header(h http.Header, canonical string) string {
	if values := h[canonical]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// clientIP is the address of the connection, or what a trusted proxy says.
func (s *Server) clientIP(c *gin.Context) string {
	if len(s.cfg.TrustedProxies) > 0 {
		return c.ClientIP()
	}
	if peer, ok := c.Request.Context().Value(peerKey{}).(string); ok {
		return peer
	}
	return hostOf(c.Request.RemoteAddr)
}

// hostOf returns the host of an address, or "" where it is not one of IP.
func hostOf(address string) string {
	peer, err := netip.ParseAddrPort(address)
	if err != nil {
		return ""
	}
	return peer.Addr().Unmap().WithZone("").String()
}

// Header values that every response shares; net/http only reads them.
var (
	noStore = []string{"no-store"}
	noSniff = []string{"nosniff"}
	closing = []string{"close"} // net/http closes the connection then
)

const maxRequestID = 128

// requestID takes the client's id if it is short and plain enough to be logged and echoed, or makes one.
func requestID(h http.Header) string {
	if given := header(h, "X-Request-Id"); given != "" && len(given) <= maxRequestID && isPlain(given) {
		return given
	}
	var b [16]byte
	binary.NativeEndian.PutUint64(b[:8], rand.Uint64()) //nolint:gosec // it need not be a secret
	binary.NativeEndian.PutUint64(b[8:], rand.Uint64()) //nolint:gosec // as above
	return hex.EncodeToString(b[:])
}

func isPlain(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case c == '-', c == '_', c == '.', c == ':', c == '/', c == '+', c == '=':
		default:
			return false
		}
	}
	return true
}

// traceID returns the id of the trace that the request belongs to: its span's, or else that of its traceparent header
// (W3C Trace Context, version 00), or "" for a malformed one, which the specification asks to ignore.
func (s *Server) traceID(in *http.Request) string {
	if s.traced {
		if span := trace.SpanContextFromContext(in.Context()); span.IsValid() {
			return span.TraceID().String()
		}
	}
	parent := header(in.Header, "Traceparent")
	const length = len("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	if len(parent) < length || parent[2] != '-' || parent[35] != '-' || parent[52] != '-' || parent[:2] == "ff" {
		return ""
	}
	id := parent[3:35]
	if !isLowerHex(parent[:2]) || !isLowerHex(id) || !isLowerHex(parent[36:52]) || strings.Trim(id, "0") == "" {
		return ""
	}
	return id
}

func isLowerHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}

const maxUserAgent = 512

// userAgent makes the header fit for storage: bounded, and valid UTF-8 without NUL as PostgreSQL demands.
func userAgent(s string) string {
	if len(s) > maxUserAgent {
		s = s[:maxUserAgent]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, ""), "\x00", "")
}

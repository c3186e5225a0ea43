package web

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/errs"
)

// maxIdempotencyKey is the longest Idempotency-Key in bytes.
const maxIdempotencyKey = 255

// Errors of Idempotency-Key (draft-ietf-httpapi-idempotency-key-header).
var (
	ErrIdempotencyKeyMalformed = errs.New(errs.Malformed, "idempotency_key_malformed",
		"Idempotency-Key takes 1 to 255 visible ASCII characters, once.")
	ErrIdempotencyKeyReused = errs.New(errs.Invalid, "idempotency_key_reused",
		"This Idempotency-Key was used for another request. Use a new one.").
		With(errs.Field{Param: "Idempotency-Key", Code: "reused", Message: "Was used for another request."})
	ErrIdempotencyInFlight = errs.New(errs.Conflict, "idempotency_in_flight",
		"The first request with this Idempotency-Key has not been answered yet. Try again.")
	ErrIdempotencyAnswerLost = errs.New(errs.Conflict, "idempotency_answer_lost",
		"The first request with this Idempotency-Key was carried out, but its answer is lost. Read what it has changed.")
)

// idempotently runs a POST once for its key, or gives the first answer again.
//
// What is kept can be read only by who sends the request again: the answer, which may hold a session token, is sealed
// with a key derived from the server's secret, the credential, the client's key and the body; and the hashes by which
// it is found are keyed as well, since a plain hash of a body would let a thief of the table try passwords on it.
// Anonymous callers are told apart by address.
func (s *Server) idempotently(c *gin.Context, req *request, keys []string, body []byte, next func()) {
	if len(keys) != 1 || !isVisible(keys[0]) || len(keys[0]) > maxIdempotencyKey {
		s.abort(c, problemOf(req, ErrIdempotencyKeyMalformed))
		return
	}
	e := s.newExchange(c, req, keys[0], body)
	acquired, row, err := s.acquire(req, e.id, e.fingerprint, e.lease)
	switch {
	case err != nil:
		s.abort(c, problemOf(req, err))
	case acquired:
		s.first(c, req, e, next)
	case row.fingerprint != nil && !hmac.Equal(row.fingerprint, e.fingerprint):
		s.abort(c, problemOf(req, ErrIdempotencyKeyReused))
	case row.status == nil && row.done && row.wait == 0:
		s.abort(c, problemOf(req, ErrIdempotencyAnswerLost))
	case row.status == nil:
		s.abort(c, problemOf(req, ErrIdempotencyInFlight.After(min(row.wait, 5*time.Second))))
	default:
		s.replay(c, req, e, row)
	}
}

func isVisible(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// exchange is one request with an Idempotency-Key.
type exchange struct {
	id, fingerprint []byte
	lease           uuid.UUID
	seal            []byte // AES-256 key
}

func (s *Server) newExchange(c *gin.Context, req *request, key string, body []byte) exchange {
	caller := req.caller.Kind.String() + " " + req.caller.ID
	if req.caller.Kind == Anonymous {
		caller = "anonymous " + req.info.IP
	}
	request := s.digest(c.Request.Method, c.Request.URL.RequestURI(), string(body))
	e := exchange{
		id:          s.digest("id", caller, c.Request.Method, c.Request.URL.Path, key),
		fingerprint: s.digest("fingerprint", string(request)),
		lease:       uuid.New(),
	}
	secret := s.digest("seal", c.GetHeader("Authorization"), key, string(request))
	seal, err := hkdf.Key(sha256.New, secret, nil, "strata answer", sha256.Size)
	if err != nil {
		panic(err) // only for lengths that SHA-256 cannot give
	}
	e.seal = seal
	return e
}

// digest is a keyed hash of parts, each with its length.
func (s *Server) digest(parts ...string) []byte {
	h := hmac.New(sha256.New, s.secrets.idempotency)
	for _, part := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	return h.Sum(nil)
}

// first runs the operation, keeps its answer, and sends it after that: a client that got an answer can rely on it.
//
// What the operation commits, it commits together with a mark that it was done: should the answer not be kept, since this
// instance dies or the operation fails later, nobody does it again. Nor does this request commit anything once its lease
// has passed to another one.
func (s *Server) first(c *gin.Context, req *request, e exchange, next func()) {
	held := &heldWriter{ResponseWriter: c.Writer, status: http.StatusOK}
	c.Writer = held
	done := false
	defer func() {
		c.Writer = held.ResponseWriter
		if !done { // next panicked
			s.forget(req, e, http.StatusInternalServerError)
		}
	}()
	req.exchange = &e
	next()
	done = true

	if !keeps(held.status) {
		s.forget(req, e, held.status)
	} else if err := s.keep(req, e, held); err != nil {
		s.log.LogAttrs(req, slog.LevelWarn, "idempotent answer not kept", slog.Any("error", err))
	}
	c.Writer = held.ResponseWriter
	held.sendTo(c.Writer)
}

// committing is run by every transaction of a request with an Idempotency-Key.
func (r *request) committing(ctx context.Context) error {
	if r.exchange == nil {
		return nil // it is not the operation's
	}
	return r.server.mark(ctx, r.exchange.id, r.exchange.lease)
}

// keeps tells the answers that a repetition may rely on from those that depend on the moment or the credential.
func keeps(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusRequestTimeout,
		StatusClientClosedRequest:
		return false
	}
	return status < http.StatusInternalServerError
}

// settleTime is how long keeping an answer, or forgetting a request, may take. Tests shorten it.
var settleTime = 5 * time.Second

// settling returns the context for that: the request's own time may be over.
func settling(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), settleTime)
}

// forget lets a request be tried again; one that has failed, only if it had not done anything.
func (s *Server) forget(ctx context.Context, e exchange, status int) {
	ctx, cancel := settling(ctx)
	defer cancel()
	if err := s.release(ctx, e.id, e.lease, status >= http.StatusInternalServerError); err != nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "idempotency key not released", slog.Any("error", err))
	}
}

// keptHeaders are the headers of an answer that belong to what was done, not to the request.
var keptHeaders = []string{"Content-Type", "Location", "Etag"}

// keptAnswer is an answer as it is sealed and stored.
type keptAnswer struct {
	Header map[string]string
	Body   []byte
}

func (s *Server) keep(ctx context.Context, e exchange, held *heldWriter) error {
	kept := keptAnswer{Header: map[string]string{}, Body: held.body.Bytes()}
	for _, name := range keptHeaders {
		if v := held.Header().Get(name); v != "" {
			kept.Header[name] = v
		}
	}
	plain, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	aead, err := newSeal(e)
	if err != nil {
		return err
	}
	ctx, cancel := settling(ctx)
	defer cancel()
	return s.complete(ctx, e.id, e.lease, held.status, aead.Seal(nil, nil, plain, e.id)) //nolint:gosec // this AEAD makes its own nonces
}

func newSeal(e exchange) (cipher.AEAD, error) {
	block, err := aes.NewCipher(e.seal)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// replay gives a kept answer again.
func (s *Server) replay(c *gin.Context, req *request, e exchange, row idempotencyRow) {
	var kept keptAnswer
	aead, err := newSeal(e)
	if err == nil {
		var plain []byte
		// A new credential of the same caller cannot open what the old one sealed.
		if plain, err = aead.Open(nil, nil, row.answer, e.id); err != nil {
			s.abort(c, problemOf(req, ErrIdempotencyKeyReused.Wrap(err)))
			return
		}
		err = json.Unmarshal(plain, &kept)
	}
	if err != nil {
		s.abort(c, problemOf(req, fmt.Errorf("replay: %w", err)))
		return
	}
	for name, value := range kept.Header {
		c.Header(name, value)
	}
	c.Header("Idempotency-Replayed", "true")
	c.Status(*row.status)
	c.Writer.WriteHeaderNow()
	_, _ = c.Writer.Write(kept.Body) // a failing write means the client has gone
}

// heldWriter holds an answer back until it has been kept.
type heldWriter struct {
	gin.ResponseWriter
	status int
	body   bytes.Buffer
}

func (w *heldWriter) WriteHeader(status int)            { w.status = status }
func (w *heldWriter) WriteHeaderNow()                   {}
func (w *heldWriter) Write(b []byte) (int, error)       { return w.body.Write(b) }
func (w *heldWriter) WriteString(s string) (int, error) { return w.body.WriteString(s) }
func (w *heldWriter) Status() int                       { return w.status }
func (w *heldWriter) Size() int                         { return w.body.Len() }
func (w *heldWriter) Written() bool                     { return w.body.Len() > 0 }

func (w *heldWriter) sendTo(to gin.ResponseWriter) {
	to.WriteHeader(w.status)
	to.WriteHeaderNow()
	_, _ = to.Write(w.body.Bytes()) // a failing write means the client has gone
}

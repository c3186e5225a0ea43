package web

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/errs"
)

// Errors of authentication and authorization.
var (
	ErrUnauthenticated = errs.New(errs.Unauthenticated, "unauthenticated",
		"This call needs a credential: Authorization: Bearer, with an API key or a session token.")
	ErrCredentialInvalid = errs.New(errs.Unauthenticated, "credential_invalid",
		"The credential is unknown, expired or revoked.")
	ErrScopeMissing = errs.New(errs.Forbidden, "scope_missing", "The API key does not have the scope that this call needs.")
	ErrForbidden    = errs.New(errs.Forbidden, "forbidden", "This kind of credential may not make this call.")
	ErrNotFound     = errs.New(errs.NotFound, "not_found", "There is no such resource, or it is not yours.")
)

// SessionVerifier tells whose session a token belongs to. Errors: of Kind Unauthenticated for a token that is not valid
// (any more); anything else, such as Unavailable, is answered as it is and never as 401.
type SessionVerifier interface {
	VerifySession(ctx context.Context, token string) (userID, sessionID uuid.UUID, err error)
}

// APIKey is a configured key: its name for logs and audit events, the SHA-256 of the key, and what it may do.
type APIKey struct {
	Name   string
	Hash   string   // 64 hexadecimal digits
	Scopes []string // "users:read", …; "*" is all of them
}

// MinRootKey is the least length of a root key in bytes.
const MinRootKey = 32

// SessionTokenPrefix is how session tokens start; every other bearer token is an API key.
const SessionTokenPrefix = "st_"

// Auth says who may call an operation.
type Auth struct {
	Scope  string // an API key needs this scope; empty: API keys may not call it, unless Any is set
	Self   string // sessions may call it where this path parameter is their user's id; "*": the handler decides by Caller
	Any    bool   // any valid credential will do
	Public bool   // none is needed; one that is valid is still passed on as the Caller
}

// scopeSet is what an API key may do.
type scopeSet struct {
	all  bool
	each map[string]struct{}
}

func (s scopeSet) has(scope string) bool {
	if s.all {
		return true
	}
	_, ok := s.each[scope]
	return ok
}

// keyring finds API keys by the hash of what the client sent. Looking up a hash of a high-entropy secret leaks nothing
// through timing: an attacker cannot choose hashes.
type keyring map[[sha256.Size]byte]Caller

func newKeyring(root string, keys []APIKey) (keyring, error) {
	ring := keyring{}
	if root != "" {
		if len(root) < MinRootKey {
			return nil, fmt.Errorf("root key: needs at least %d characters", MinRootKey)
		}
		ring[sha256.Sum256([]byte(root))] = Caller{Kind: Key, ID: "root", scopes: scopeSet{all: true}}
	}
	for _, k := range keys {
		var hash [sha256.Size]byte
		if n, err := hex.Decode(hash[:], []byte(k.Hash)); err != nil || n != len(hash) || len(k.Hash) != 2*len(hash) {
			return nil, fmt.Errorf("api key %q: hash must be a SHA-256 of 64 hexadecimal digits", k.Name)
		}
		if _, taken := ring[hash]; taken {
			return nil, fmt.Errorf("api key %q: another key has the same hash", k.Name)
		}
		ring[hash] = Caller{Kind: Key, ID: k.Name, scopes: newScopeSet(k.Scopes)}
	}
	return ring, nil
}

func newScopeSet(scopes []string) scopeSet {
	s := scopeSet{each: make(map[string]struct{}, len(scopes))}
	for _, scope := range scopes {
		s.all = s.all || scope == "*"
		s.each[scope] = struct{}{}
	}
	return s
}

// authenticate proves who sends a request. It returns the zero Caller for a request without a credential.
func (s *Server) authenticate(ctx context.Context, h http.Header) (Caller, error) {
	values := h["Authorization"]
	if len(values) == 0 {
		return Caller{}, nil
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.Trim(token, " ")
	if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return Caller{}, ErrCredentialInvalid
	}
	if strings.HasPrefix(token, SessionTokenPrefix) {
		return s.verifySession(ctx, token)
	}
	var secret [128]byte // on the stack, where a conversion would not be
	if caller, ok := s.keys[sha256.Sum256(append(secret[:0], token...))]; ok {
		return caller, nil
	}
	return Caller{}, ErrCredentialInvalid
}

func (s *Server) verifySession(ctx context.Context, token string) (Caller, error) {
	if s.sessions == nil {
		return Caller{}, ErrCredentialInvalid
	}
	userID, sessionID, err := s.sessions.VerifySession(ctx, token)
	switch {
	case err == nil:
	case errs.KindOf(err) == errs.Unauthenticated:
		return Caller{}, ErrCredentialInvalid.Wrap(err)
	default:
		return Caller{}, err
	}
	return sessionCaller(userID, sessionID), nil
}

// authorize decides whether caller may make this call. param reads a path parameter.
//
// A session that reaches for another user's resource gets 404, so that it learns nothing about whether that exists; a
// credential of the wrong kind, or a key without the scope, gets 403.
func (a Auth) authorize(caller Caller, param func(string) string) error {
	switch {
	case a.Public:
		return nil
	case caller.Kind == Anonymous:
		return ErrUnauthenticated
	case a.Any:
		return nil
	case caller.Kind == Key && a.Scope == "", caller.Kind == Session && a.Self == "":
		return ErrForbidden
	case caller.Kind == Key && !caller.Has(a.Scope):
		return ErrScopeMissing
	case caller.Kind == Session && a.Self != "*" && param(a.Self) != caller.ID:
		return ErrNotFound
	}
	return nil
}

// identify authenticates a request to an operation with this rule. Public operations overlook a credential that is not
// valid: a sign-in must not fail because the client still sends its old token.
func (s *Server) identify(ctx context.Context, a Auth, h http.Header) (Caller, error) {
	caller, err := s.authenticate(ctx, h)
	if err != nil && a.Public {
		return Caller{}, nil
	}
	return caller, err
}

// challenge is the WWW-Authenticate header for a refusal (RFC 6750, section 3).
func challenge(e *errs.Error, scope string) string {
	switch e.Code {
	case ErrUnauthenticated.Code:
		return `Bearer realm="strata"`
	case ErrScopeMissing.Code:
		return `Bearer realm="strata", error="insufficient_scope", scope="` + scope + `"`
	case ErrCredentialInvalid.Code:
		return `Bearer realm="strata", error="invalid_token"`
	}
	if e.Kind == errs.Unauthenticated {
		return `Bearer realm="strata"`
	}
	return ""
}

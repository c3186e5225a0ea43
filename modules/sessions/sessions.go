// Package sessions is the module that knows who is signed in: opaque tokens, on which devices, until when. A session is
// a row; revoking it deletes the row, and the audit trail keeps its history.
//
// Reading order: module.go (what it needs and offers), service.go (the rules), repository.go (the ladder of storage
// implementations), http.go (the API).
package sessions

import (
	"crypto/rand"
	"crypto/sha256"
	"database/sql/driver"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/errs"
)

// IDPrefix is the TypeID prefix of a session's id outside the database.
const IDPrefix = "ses"

// userIDPrefix is the TypeID prefix of users, whose ids sessions carry.
const userIDPrefix = "user"

// tokenPrefix tells a session token from an API key.
const tokenPrefix = "st_"

// tokenLength is that of the prefix and 256 bits in base64url without padding.
const tokenLength = len(tokenPrefix) + 43

// Session is a sign-in on one device. Members that its mere use changes are left out of JSON, and thereby of comparisons
// between rungs, and between the cache and the table.
type Session struct {
	ID            uuid.UUID
	UserID        uuid.UUID
	TokenHash     Hash
	CreatedAt     time.Time
	LastSeenAt    time.Time `json:"-"` // coalesced: behind the last use by Config.SeenInterval at most
	ExpiresAt     time.Time // whatever happens
	IdleExpiresAt time.Time `json:"-"` // unless it is used before; never after ExpiresAt, so that it alone decides
	IP            string    // at sign-in
	UserAgent     string    // at sign-in
	Version       int64     // counts the row's changes; use is not one
}

// NewSession is what a session is made from. Its lifetimes count from now by the database's clock.
type NewSession struct {
	ID        uuid.UUID
	UserID    uuid.UUID
	TokenHash Hash
	IP        string
	UserAgent string
	Idle      time.Duration
	Lifetime  time.Duration
}

// The module's errors.
var (
	ErrNotFound     = errs.New(errs.NotFound, "session_not_found", "There is no such session.")
	ErrTokenInvalid = errs.New(errs.Unauthenticated, "session_invalid", "The session is unknown, expired or revoked.")
)

// Hash is the SHA-256 of a secret, or of what must not be kept in the clear.
type Hash [sha256.Size]byte

// String returns the hash in hexadecimal digits.
func (h Hash) String() string {
	var digits [2 * sha256.Size]byte
	hex.Encode(digits[:], h[:])
	return string(digits[:])
}

// key is the hash's bytes, which nobody reads.
func (h Hash) key() string { return string(h[:]) }

// MarshalText implements encoding.TextMarshaler, with hexadecimal digits.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// Value implements driver.Valuer.
func (h Hash) Value() (driver.Value, error) { return h[:], nil }

// Scan implements sql.Scanner.
func (h *Hash) Scan(src any) error {
	b, ok := src.([]byte)
	if !ok || len(b) != len(h) {
		return fmt.Errorf("scan hash: %T of unexpected length", src)
	}
	copy(h[:], b)
	return nil
}

// newToken returns 256 random bits as a client sees them, once, and their hash, which is all that is kept.
func newToken() (string, Hash) {
	var bits [32]byte
	_, _ = rand.Read(bits[:]) // never fails (crypto/rand)
	token := tokenPrefix + base64.RawURLEncoding.EncodeToString(bits[:])
	return token, sha256.Sum256([]byte(token))
}

// hashToken returns the hash of what a client presents. Errors: ErrTokenInvalid for what is no session token at all.
func hashToken(token string) (Hash, error) {
	if len(token) != tokenLength || !strings.HasPrefix(token, tokenPrefix) {
		return Hash{}, ErrTokenInvalid
	}
	var secret [tokenLength]byte // on the stack, where a conversion would not be
	copy(secret[:], token)
	return sha256.Sum256(secret[:]), nil
}

// Package users is the module that owns accounts: who exists, under which e-mail, in which state, and the password that
// proves it. Other modules reach it through interfaces of their own, wired in cmd/api/wire.go.
//
// Reading order: module.go (what it needs and offers), service.go (the rules), repository.go (the ladder of storage
// implementations), http.go (the API).
package users

import (
	"bytes"
	"encoding/json"
	"net/mail"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/errs"
)

// IDPrefix is the TypeID prefix of a user's id outside the database.
const IDPrefix = "user"

// Limits on what a user may hold.
const (
	MaxEmail    = 254       // characters, RFC 5321 section 4.5.3.1.3 less the angle brackets
	MaxName     = 200       // characters
	MaxMetadata = 16 * 1024 // bytes of compact JSON
)

// Status is what an account may do.
type Status string

// The states of an account.
const (
	Active    Status = "active"
	Suspended Status = "suspended" // may not sign in; its sessions have ended
	Deleted   Status = "deleted"   // soft: may be restored until it is erased
)

// User is an account. Its password is not part of it.
type User struct {
	ID            uuid.UUID
	Email         string // as given, trimmed; unique without regard to case
	EmailVerified bool
	Name          string
	Status        Status
	Metadata      json.RawMessage // a JSON object
	Version       int64           // counts the row's changes; the ETag
	CreatedAt     time.Time
	UpdatedAt     time.Time
	LastSignInAt  *time.Time
}

// equal reports whether u and v hold the same state, apart from what the database itself maintains.
func (u User) equal(v User) bool {
	return u.Email == v.Email && u.EmailVerified == v.EmailVerified && u.Name == v.Name && u.Status == v.Status &&
		sameJSON(u.Metadata, v.Metadata)
}

// sameJSON reports whether two texts say the same, whatever the order of their members and the space between.
func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	decode := func(text json.RawMessage) (v any, ok bool) {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber() // keeps numbers that no float64 tells apart
		return v, d.Decode(&v) == nil
	}
	x, xok := decode(a)
	y, yok := decode(b)
	return xok && yok && reflect.DeepEqual(x, y)
}

// changed names the members in which v differs from u, for the audit trail.
func (u User) changed(v User) []string {
	var names []string
	for _, m := range []struct {
		name string
		same bool
	}{
		{"email", u.Email == v.Email},
		{"email_verified", u.EmailVerified == v.EmailVerified},
		{"name", u.Name == v.Name},
		{"status", u.Status == v.Status},
		{"metadata", sameJSON(u.Metadata, v.Metadata)},
	} {
		if !m.same {
			names = append(names, m.name)
		}
	}
	return names
}

// The module's errors.
var (
	ErrNotFound           = errs.New(errs.NotFound, "user_not_found", "There is no such user.")
	ErrEmailTaken         = errs.New(errs.Conflict, "user_email_taken", "Another user has this e-mail address.")
	ErrDeleted            = errs.New(errs.Conflict, "user_deleted", "The user is deleted; restore it first.")
	ErrNotDeleted         = errs.New(errs.Conflict, "user_not_deleted", "The user is not deleted.")
	ErrSuspended          = errs.New(errs.Forbidden, "user_suspended", "The account is suspended.")
	ErrInvalidCredentials = errs.New(errs.Unauthenticated, "invalid_credentials", "The e-mail address or the password is wrong.")
	ErrWrongPassword      = errs.New(errs.Invalid, "current_password_wrong", "The current password is wrong.")
	ErrTokenInvalid       = errs.New(errs.Invalid, "token_invalid", "The token is unknown, used, or expired.")
)

// NewUser is what an account is made from.
type NewUser struct {
	Email    string
	Password *string // nil: the account has none and cannot sign in until one is set
	Name     string
	Metadata json.RawMessage // nil: an empty object
}

// Validate trims the e-mail and reports every violation at once. Errors: errs.ErrInvalid with Fields.
func (n *NewUser) Validate() error {
	n.Email = strings.TrimSpace(n.Email)
	if len(n.Metadata) == 0 {
		n.Metadata = json.RawMessage("{}")
	}
	fields := validate(n.Email, n.Name, n.Metadata)
	if n.Password != nil {
		fields = append(fields, checkPassword(*n.Password, n.Email, n.Name)...)
	}
	return errs.Violated(fields)
}

func validate(email, name string, metadata json.RawMessage) []errs.Field {
	return slices.Concat(checkEmail(email), checkName(name), checkMetadata(metadata))
}

func checkEmail(email string) []errs.Field {
	if email == "" {
		return []errs.Field{{Pointer: "/email", Code: "required", Message: "Must not be empty."}}
	}
	if utf8.RuneCountInString(email) > MaxEmail {
		return []errs.Field{{Pointer: "/email", Code: "too_long", Message: "Must have at most 254 characters."}}
	}
	addr, err := mail.ParseAddress(email)
	if err != nil || addr.Address != email || strings.ContainsFunc(email, unicode.IsControl) {
		return []errs.Field{{Pointer: "/email", Code: "format", Message: "Must be an e-mail address such as ada@example.com."}}
	}
	return nil
}

func checkName(name string) []errs.Field {
	if utf8.RuneCountInString(name) > MaxName {
		return []errs.Field{{Pointer: "/name", Code: "too_long", Message: "Must have at most 200 characters."}}
	}
	if strings.ContainsFunc(name, unicode.IsControl) {
		return []errs.Field{{Pointer: "/name", Code: "characters", Message: "Must not contain control characters."}}
	}
	return nil
}

func checkMetadata(metadata json.RawMessage) []errs.Field {
	if len(metadata) > MaxMetadata {
		return []errs.Field{{Pointer: "/metadata", Code: "too_long", Message: "Must have at most 16384 bytes."}}
	}
	return checkObject(metadata)
}

func checkObject(metadata json.RawMessage) []errs.Field {
	var object map[string]any // decoding also refuses numbers that no client could read
	if err := json.Unmarshal(metadata, &object); err != nil || object == nil {
		return []errs.Field{{Pointer: "/metadata", Code: "type", Message: "Must be a JSON object whose numbers fit a double."}}
	}
	return nil
}

// Filter selects a page of users, newest first.
type Filter struct {
	Email        string     // the whole address, without regard to case
	Status       Status     // empty: all but the deleted
	Query        string     // a prefix of the e-mail or of the name, without regard to case
	CreatedAfter *time.Time // exclusive
	After        *Position  // the last user of the page before
	Limit        int
}

// Position is a user's place in the order of lists.
type Position struct {
	CreatedAt time.Time
	ID        uuid.UUID
}

// Purpose says what a mailed token is good for.
type Purpose string

// The purposes of mailed tokens.
const (
	EmailVerification Purpose = "email_verification"
	PasswordReset     Purpose = "password_reset"
)

// Token is a single-use proof that somebody reads an e-mail address. Only its SHA-256 is stored.
type Token struct {
	Hash      []byte
	UserID    uuid.UUID
	Purpose   Purpose
	Email     string
	ExpiresIn time.Duration // counted by the database's clock
	ExpiresAt time.Time     // set by the repository
}

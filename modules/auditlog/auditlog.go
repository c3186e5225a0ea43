// Package auditlog is the module that remembers who did what to whom. Events are written in the transaction of what they
// describe, are never changed, and are sealed into a Merkle tree whose signed checkpoints show any later tampering.
//
// Reading order: module.go (what it needs and offers), service.go (recording and reading), repository.go (the ladder of
// storage implementations), sealer.go and verify.go (tamper evidence), http.go (the API).
package auditlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/errs"
)

// IDPrefix is the TypeID prefix of an event's id outside the database.
const IDPrefix = "evt"

// Limits on what an event may hold.
const (
	MaxAction    = 100       // characters
	MaxType      = 50        // characters of an actor's or target's type
	MaxID        = 200       // characters of an actor's or target's id
	MaxUserAgent = 512       // characters
	MaxRequestID = 128       // characters
	MaxMetadata  = 16 * 1024 // bytes of compact JSON
	MaxBatch     = 1000      // events that an application appends in one call
)

// Types of actor that Strata's own events have. Applications may use others.
const (
	Anonymous = "anonymous" // nobody who has proved who they are
	System    = "system"    // a job of Strata itself
	User      = "user"
)

// Ref names an actor or a target.
type Ref struct {
	Type string // "user", "session", …
	ID   string // a TypeID, a key's name, or whatever an application calls its own
}

// Event is one thing that happened. It never changes, except that its IP and UserAgent vanish when the person they
// belong to is erased.
type Event struct {
	ID         uuid.UUID
	OccurredAt time.Time // when its transaction began, by the database's clock
	Action     string    // noun.verb-past: "user.created"
	Actor      Ref
	Target     Ref // zero where there is none
	IP         string
	UserAgent  string
	RequestID  string
	RecordedBy string          // the API key with which an application recorded it; empty for Strata's own events
	Metadata   json.RawMessage // a JSON object, kept as it was given

	// Origin commits to IP and UserAgent, so that the event can be proved with and without them. Nil where both are empty.
	Origin []byte
}

// Filter selects a page of events, newest first.
type Filter struct {
	Actor   Ref        // its ID and, where Type is not empty, its Type; zero: any
	Target  Ref        // likewise
	Action  string     // the whole action
	Subject string     // the id of a user who must be the actor or the target
	From    *time.Time // inclusive
	To      *time.Time // exclusive
	After   *Position  // the last event of the page before
	Limit   int
}

// Position is an event's place in the order of lists.
type Position struct {
	OccurredAt time.Time
	ID         uuid.UUID
}

// The module's errors.
var (
	ErrNotFound  = errs.New(errs.NotFound, "audit_event_not_found", "There is no such audit event.")
	ErrNotSealed = errs.New(errs.Conflict, "audit_event_not_sealed",
		"The event has not been sealed yet. Try again in a moment.").After(time.Second)
	ErrNoCheckpoint = errs.New(errs.NotFound, "audit_checkpoint_not_found", "No event has been sealed yet.")
	ErrTreeSize     = errs.New(errs.Invalid, "tree_size_invalid", "The tree has no such size, or the event came later.")
	ErrTampered     = errs.New(errs.Internal, "audit_log_damaged",
		"The stored audit log does not match its signed checkpoint. Run: strata audit verify")
	ErrForeignKey = errs.New(errs.Internal, "audit_key_unknown",
		"The audit log was last sealed with a key that this server does not know. "+
			"Configure it as auditlog.signing_key, or add its public key to auditlog.verifiers.")
)

var (
	actionPattern = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$`)
	typePattern   = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
)

// normalize brings e into the form in which it is stored and hashed, and reports every violation, located below at.
func (e *Event) normalize(at string) []errs.Field {
	var fields []errs.Field
	fail := func(member, code, message string) {
		fields = append(fields, errs.Field{Pointer: at + member, Code: code, Message: message})
	}
	if len(e.Action) > MaxAction || !actionPattern.MatchString(e.Action) {
		fail("/action", "format", "Must be lower-case words joined by dots, such as invoice.paid, of at most 100 characters.")
	}
	fields = append(fields, e.Actor.check(at+"/actor")...)
	if e.Target != (Ref{}) {
		fields = append(fields, e.Target.check(at+"/target")...)
	}
	if e.IP != "" {
		addr, err := netip.ParseAddr(e.IP)
		if err != nil {
			fail("/ip", "format", "Must be an IPv4 or IPv6 address.")
		}
		e.IP = addr.Unmap().WithZone("").String()
	}
	e.UserAgent = strings.Map(printable, e.UserAgent)
	for _, text := range []struct {
		member, value string
		limit         int
	}{{"/user_agent", e.UserAgent, MaxUserAgent}, {"/request_id", e.RequestID, MaxRequestID}} {
		if code, problem := checkText(text.value, text.limit); code != "" {
			fail(text.member, code, problem)
		}
	}
	metadata, problem := compactObject(e.Metadata)
	if problem != "" {
		fail("/metadata", "format", problem)
	}
	e.Metadata = metadata
	return fields
}

func (r Ref) check(at string) []errs.Field {
	var fields []errs.Field
	if len(r.Type) > MaxType || !typePattern.MatchString(r.Type) {
		fields = append(fields, errs.Field{
			Pointer: at + "/type", Code: "format",
			Message: "Must be a lower-case word such as user, of at most 50 characters.",
		})
	}
	if code, problem := checkText(r.ID, MaxID); code != "" {
		fields = append(fields, errs.Field{Pointer: at + "/id", Code: code, Message: problem})
	}
	return fields
}

// printable replaces what a browser may send and nobody could read. What a client sends beside a change must not fail it.
func printable(r rune) rune {
	if unicode.IsControl(r) || r == utf8.RuneError {
		return ' '
	}
	return r
}

func checkText(s string, limit int) (code, message string) {
	switch {
	case utf8.RuneCountInString(s) > limit:
		return "too_long", fmt.Sprintf("Must have at most %d characters.", limit)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return "characters", "Must be UTF-8 text without control characters."
	}
	return "", ""
}

func compactObject(raw json.RawMessage) (json.RawMessage, string) {
	if len(raw) == 0 {
		return json.RawMessage("{}"), ""
	}
	var b bytes.Buffer
	if !utf8.Valid(raw) || json.Compact(&b, raw) != nil || b.Len() == 0 || b.Bytes()[0] != '{' {
		return nil, "Must be a JSON object."
	}
	if b.Len() > MaxMetadata {
		return nil, "Must have at most 16384 bytes."
	}
	return b.Bytes(), ""
}

package auditlog

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"

	"golang.org/x/mod/sumdb/tlog"
)

// leafVersion begins every leaf. A change to the encoding needs another version, and leaves keep the one they have.
const leafVersion = "strata.audit.event/1\n"

// leafTime is RFC 3339 in UTC with the microseconds that PostgreSQL stores.
const leafTime = "2006-01-02T15:04:05.000000Z"

// Leaf returns the canonical form of an event, of which the Merkle tree holds the hash: leafVersion, then these members,
// each as its length in bytes (32 bits, big-endian) followed by its bytes:
//
//	id            36 characters, lower-case hexadecimal with hyphens
//	occurred_at   such as 2026-01-31T23:59:59.000001Z
//	action
//	actor type, actor id
//	target type, target id
//	origin        32 bytes, or none
//	request_id
//	recorded_by
//	metadata      the JSON text as it was recorded, without insignificant white space
//
// Text is UTF-8. Nothing in it depends on how a database or a JSON library formats what it holds.
func (e *Event) Leaf() []byte {
	b := make([]byte, 0, 512)
	b = append(b, leafVersion...)
	for _, member := range []string{
		e.ID.String(), e.OccurredAt.UTC().Format(leafTime), e.Action, e.Actor.Type, e.Actor.ID, e.Target.Type, e.Target.ID,
		string(e.Origin), e.RequestID, e.RecordedBy, string(e.Metadata),
	} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(member))) //nolint:gosec // at most MaxMetadata
		b = append(b, member...)
	}
	return b
}

// leafHash returns the hash of e's leaf (RFC 6962, section 2.1).
func (e *Event) leafHash() tlog.Hash { return tlog.RecordHash(e.Leaf()) }

// Origin says where a request came from. It is personal data of its subject, and kept apart from the events that refer
// to it, so that it can be erased without breaking their proofs.
type Origin struct {
	Hash      []byte // commits to the rest; the events' reference to it
	SubjectID string // the actor or, where that is anonymous, the target
	Salt      []byte // keeps the hash from being guessed once the rest is erased
	IP        string
	UserAgent string
}

const saltLength = 16

func newOrigin(subject, ip, userAgent string) Origin {
	o := Origin{SubjectID: subject, Salt: make([]byte, saltLength), IP: ip, UserAgent: userAgent}
	rand.Read(o.Salt) // never fails (crypto/rand)
	o.Hash = o.commit()
	return o
}

// commit returns SHA-256(salt || ip || "\n" || user agent).
func (o Origin) commit() []byte {
	h := sha256.New()
	h.Write(o.Salt)
	h.Write([]byte(o.IP + "\n" + o.UserAgent))
	return h.Sum(nil)
}

// originsOf makes the origins of events that are recorded together and sets their references: events of one request
// share one, which makes an import's batch cheap.
func originsOf(events []Event) []Origin {
	type key struct{ subject, ip, userAgent string }
	known := map[key][]byte{}
	var origins []Origin
	for i := range events {
		e := &events[i]
		if e.Origin = nil; e.IP == "" && e.UserAgent == "" {
			continue
		}
		k := key{e.subject(), e.IP, e.UserAgent}
		if known[k] == nil {
			o := newOrigin(k.subject, k.ip, k.userAgent)
			known[k] = o.Hash
			origins = append(origins, o)
		}
		e.Origin = known[k]
	}
	return origins
}

// subject is whose personal data the event's origin is: who signs up or fails to sign in is anonymous and the target.
func (e *Event) subject() string {
	if e.Actor.Type == Anonymous {
		return e.Target.ID
	}
	return e.Actor.ID
}

package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/google/uuid"
)

// An ID tells an entity from the others of its kind. PostgreSQL and Redis know it by its text. This process, which has
// made a hundred thousand of them and looks them up all the time, keeps UUIDs and digests as their bytes, after a NUL,
// which no text from PostgreSQL holds.
type ID struct{ packed string }

const packed = "\x00"

// UUID returns the ID that PostgreSQL writes as this UUID.
func UUID(id uuid.UUID) ID { return ID{packed + string(id[:])} }

// Digest returns the ID that PostgreSQL writes as the hexadecimal digits of this digest.
func Digest(sum [sha256.Size]byte) ID { return ID{packed + string(sum[:])} }

// Text returns the ID that PostgreSQL writes so.
func Text(text string) ID {
	switch len(text) {
	case len(uuid.Nil.String()):
		if id, err := uuid.Parse(text); err == nil && id.String() == text {
			return UUID(id)
		}
	case hex.EncodedLen(sha256.Size):
		var sum [sha256.Size]byte
		if _, err := hex.Decode(sum[:], []byte(text)); err == nil && hex.EncodeToString(sum[:]) == text {
			return Digest(sum)
		}
	}
	return ID{text}
}

// String returns the ID as PostgreSQL writes it.
func (id ID) String() string {
	if b, ok := strings.CutPrefix(id.packed, packed); ok {
		if len(b) == len(uuid.Nil) {
			return uuid.UUID([]byte(b)).String()
		}
		return hex.EncodeToString([]byte(b))
	}
	return id.packed
}

// UUID returns the UUID that the ID was made of. It is the nil UUID where that was something else.
func (id ID) UUID() (u uuid.UUID) {
	copy(u[:], id.bytes(len(u)))
	return u
}

// Digest returns the digest that the ID was made of. It is zero where that was something else.
func (id ID) Digest() (sum [sha256.Size]byte) {
	copy(sum[:], id.bytes(len(sum)))
	return sum
}

func (id ID) bytes(n int) string {
	if len(id.packed) == len(packed)+n {
		return strings.TrimPrefix(id.packed, packed)
	}
	return ""
}

// everything, in place of an entity's ID, is all those of its kind.
var everything = Text("*")

// A name is an entity's identity: "kind:id" in the outbox and in Redis, two parts here, so that a hit joins no strings.
type name struct {
	kind string
	id   ID
}

func (n name) String() string { return n.kind + ":" + n.id.String() }

func parseName(key string) name {
	kind, id, _ := strings.Cut(key, ":")
	return name{kind, Text(id)}
}

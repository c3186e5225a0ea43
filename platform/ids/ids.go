// Package ids makes identifiers and shows them: UUIDv7 (RFC 9562) in the database, TypeIDs (the public "TypeID"
// specification, version 0.3: a prefix and 26 base-32 characters) outside, so that an id of one kind is never taken for
// one of another.
package ids

import (
	"encoding/binary"
	"strings"

	"github.com/google/uuid"
	"go.jetify.com/typeid/base32"

	"github.com/strata-accounts/strata/platform/errs"
)

// ErrMalformed reports an identifier that is not a TypeID of the kind asked for. In a path it leads nowhere, as one does
// that nothing has.
var ErrMalformed = errs.New(errs.NotFound, "id_malformed", "The identifier is not of the kind this call takes.")

// New returns a fresh UUIDv7: ordered by time, unguessable in its last 62 bits.
func New() uuid.UUID {
	return uuid.Must(uuid.NewV7())
}

// Format renders id as a TypeID with this prefix, such as user_01h455vb4pex5vsknk084sn02q. The prefix is a constant of
// ours, and is not checked.
func Format(prefix string, id uuid.UUID) string {
	var s [64]byte
	return string(Append(s[:0], prefix, id))
}

// Append appends what Format returns.
func Append(b []byte, prefix string, id uuid.UUID) []byte {
	const digits = "0123456789abcdefghjkmnpqrstvwxyz" // Crockford's
	high, low := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	var suffix [26]byte
	for i := len(suffix) - 1; i >= 0; i-- {
		suffix[i] = digits[low&31]
		high, low = high>>5, low>>5|high<<59
	}
	b = append(b, prefix...)
	b = append(b, '_')
	return append(b, suffix[:]...)
}

// Key returns the 16 bytes of id: what tells it from others, where nobody reads it.
func Key(id uuid.UUID) string { return string(id[:]) }

// Parse reads a TypeID that must have this prefix. Errors: ErrMalformed.
func Parse(prefix, s string) (uuid.UUID, error) {
	suffix, ok := strings.CutPrefix(s, prefix)
	if !ok || len(suffix) != 27 || suffix[0] != '_' || suffix[1] > '7' { // 26 digits hold 130 bits, of which 128 are used
		return uuid.Nil, ErrMalformed
	}
	id, err := base32.Decode(suffix[1:])
	if err != nil {
		return uuid.Nil, ErrMalformed
	}
	return uuid.UUID(id), nil
}

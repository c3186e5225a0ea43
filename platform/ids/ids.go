// Package ids makes identifiers and shows them: UUIDv7 (RFC 9562) in the database, TypeIDs (the public "TypeID"
// specification, version 0.3: a prefix and 26 base-32 characters) outside, so that an id of one kind is never taken for
// one of another.
package ids

import (
	"github.com/google/uuid"
	"go.jetify.com/typeid"

	"github.com/strata-accounts/strata/platform/errs"
)

// ErrMalformed reports an identifier that is not a TypeID of the kind asked for. In a path it leads nowhere, as one does
// that nothing has.
var ErrMalformed = errs.New(errs.NotFound, "id_malformed", "The identifier is not of the kind this call takes.")

// New returns a fresh UUIDv7: ordered by time, unguessable in its last 62 bits.
func New() uuid.UUID {
	return uuid.Must(uuid.NewV7())
}

// Format renders id as a TypeID with this prefix, such as user_01h455vb4pex5vsknk084sn02q.
func Format(prefix string, id uuid.UUID) string {
	tid, err := typeid.FromUUIDBytesWithPrefix(prefix, id[:])
	if err != nil {
		panic(err) // the prefix is a constant of ours; only a typing error gets here
	}
	return tid.String()
}

// Parse reads a TypeID that must have this prefix. Errors: ErrMalformed.
func Parse(prefix, s string) (uuid.UUID, error) {
	tid, err := typeid.FromString(s)
	if err != nil || tid.Prefix() != prefix {
		return uuid.Nil, ErrMalformed
	}
	return uuid.FromBytes(tid.UUIDBytes())
}

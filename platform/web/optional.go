package web

import (
	"bytes"
	"encoding/json"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
)

// Optional is a member of a JSON Merge Patch (RFC 7396): absent, null, or a value. Give the field `json:"…,omitzero"`;
// add `nullable:"false"` where null has no meaning, and it is refused before the handler runs.
type Optional[T any] struct {
	Value T
	Set   bool // the member was present
	Null  bool // it was null; Value is then zero
}

// Ptr returns a pointer to the value, or nil where the member was absent or null.
func (o Optional[T]) Ptr() *T {
	if !o.Set || o.Null {
		return nil
	}
	return &o.Value
}

// UnmarshalJSON implements json.Unmarshaler. It is called only for members that are present.
func (o *Optional[T]) UnmarshalJSON(data []byte) error {
	o.Set = true
	if bytes.Equal(data, []byte("null")) {
		o.Null = true
		return nil
	}
	return json.Unmarshal(data, &o.Value)
}

// MarshalJSON implements json.Marshaler, for clients and tests.
func (o Optional[T]) MarshalJSON() ([]byte, error) {
	if !o.Set || o.Null {
		return []byte("null"), nil
	}
	return json.Marshal(o.Value)
}

// IsZero reports whether the member is absent, so that omitzero leaves it out.
func (o Optional[T]) IsZero() bool { return !o.Set }

// Schema implements huma.SchemaProvider: that of T, or null.
func (Optional[T]) Schema(r huma.Registry) *huma.Schema {
	s := *r.Schema(reflect.TypeFor[T](), true, "")
	s.Nullable = s.Ref == "" // OpenAPI 3.1 has no nullable beside $ref
	return &s
}

// OneOrMany is a body that is one T or an array of them. How many there may be is for the input's Check.
type OneOrMany[T any] []T

// UnmarshalJSON implements json.Unmarshaler.
func (m *OneOrMany[T]) UnmarshalJSON(data []byte) error {
	if bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("[")) {
		return json.Unmarshal(data, (*[]T)(m))
	}
	*m = make(OneOrMany[T], 1)
	return json.Unmarshal(data, &(*m)[0])
}

// Schema implements huma.SchemaProvider.
func (OneOrMany[T]) Schema(r huma.Registry) *huma.Schema {
	one := r.Schema(reflect.TypeFor[T](), true, "")
	return &huma.Schema{OneOf: []*huma.Schema{one, {Type: huma.TypeArray, Items: one, MinItems: ptr(1)}}}
}

// RawJSON is a member that holds any JSON object, kept as the client sent it (insignificant white space apart).
type RawJSON json.RawMessage

// UnmarshalJSON implements json.Unmarshaler.
func (j *RawJSON) UnmarshalJSON(data []byte) error {
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		return err
	}
	*j = b.Bytes()
	return nil
}

// MarshalJSON implements json.Marshaler; an empty RawJSON is {}.
func (j RawJSON) MarshalJSON() ([]byte, error) { return j.AppendJSON(nil), nil }

// AppendJSON implements JSONAppender.
func (j RawJSON) AppendJSON(b []byte) []byte {
	if len(j) == 0 {
		return append(b, "{}"...)
	}
	return append(b, j...)
}

// Schema implements huma.SchemaProvider: an object with any members.
func (RawJSON) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}
}

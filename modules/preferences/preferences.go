// Package preferences is the module that owns what users prefer: definitions, each a key with a JSON Schema and a
// default, and the values that users set in their place. Other modules reach it through interfaces of their own, wired
// in cmd/api/wire.go.
//
// Reading order: module.go (what it needs and offers), service.go (the rules), repository.go (the ladder of storage
// implementations), http.go (the API).
package preferences

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/errs"
)

// Limits on definitions, and on what a user may set. Sizes are of compact JSON.
const (
	MaxDefinitions = 256
	MaxDescription = 1000      // characters
	MaxSchema      = 16 * 1024 // bytes
	MaxDefault     = 8 * 1024  // bytes
	MaxValues      = 64 * 1024 // bytes of a user's values together, as one object
	MaxDepth       = 32        // levels of nesting of a schema, a default or a value
)

// KeyPattern is the form of a key: what reads well in a path, a pointer and a program, such as editor.tab-size.
const KeyPattern = `^[a-z][a-z0-9_.-]{0,63}$`

var keyPattern = regexp.MustCompile(KeyPattern)

// Definition says that a preference exists, which values it may have, and which one it has for those who set none.
type Definition struct {
	Key         string
	Schema      json.RawMessage // JSON Schema 2020-12
	Default     json.RawMessage // satisfies Schema
	Description string
	Version     int64 // counts the row's changes; the ETag
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// equal reports whether d and e say the same, apart from what the database itself maintains.
func (d Definition) equal(e Definition) bool {
	return d.Key == e.Key && bytes.Equal(d.Schema, e.Schema) && bytes.Equal(d.Default, e.Default) && d.Description == e.Description
}

// changed names the members in which e differs from d, for the audit trail.
func (d Definition) changed(e Definition) []string {
	var names []string
	if !bytes.Equal(d.Schema, e.Schema) {
		names = append(names, "schema")
	}
	if !bytes.Equal(d.Default, e.Default) {
		names = append(names, "default")
	}
	if d.Description != e.Description {
		names = append(names, "description")
	}
	return names
}

// Catalogue is all definitions, in the order of their keys. It is immutable.
type Catalogue struct {
	Definitions []Definition
	Tag         string // differs between catalogues that differ
}

// newCatalogue takes definitions in the order of their keys.
func newCatalogue(definitions []Definition) Catalogue {
	h := sha256.New()
	for _, d := range definitions {
		_, _ = fmt.Fprintf(h, "%s %d %d %s %s %q\n", d.Key, d.Version, d.CreatedAt.UnixMicro(), d.Schema, d.Default, d.Description) // a hash never fails
	}
	return Catalogue{Definitions: definitions, Tag: hex.EncodeToString(h.Sum(nil)[:8])}
}

// ByKey returns the definition of key, and whether there is one.
func (c Catalogue) ByKey(key string) (Definition, bool) {
	i, found := slices.BinarySearchFunc(c.Definitions, key, func(d Definition, key string) int {
		return strings.Compare(d.Key, key)
	})
	if !found {
		return Definition{}, false
	}
	return c.Definitions[i], true
}

// Value is what a user has set for one preference.
type Value struct {
	Key  string
	JSON json.RawMessage
}

// Values is what a user has set. It is immutable once a repository has returned it.
type Values struct {
	UserID  uuid.UUID
	Version int64   // counts the changes; 0: the user never set anything
	Set     []Value // in the order of their keys, as the catalogue's definitions are
}

// find returns where key is in Set, or would be, and whether it is.
func (v Values) find(key string) (int, bool) {
	return slices.BinarySearchFunc(v.Set, key, func(set Value, key string) int { return strings.Compare(set.Key, key) })
}

// get returns what is set for key, and whether anything is.
func (v Values) get(key string) (json.RawMessage, bool) {
	i, found := v.find(key)
	if !found {
		return nil, false
	}
	return v.Set[i].JSON, true
}

// set has the value of key be this one.
func (v *Values) set(key string, value json.RawMessage) {
	i, found := v.find(key)
	if !found {
		v.Set = slices.Insert(v.Set, i, Value{Key: key})
	}
	v.Set[i].JSON = value
}

// unset returns key to its default.
func (v *Values) unset(key string) {
	if i, found := v.find(key); found {
		v.Set = slices.Delete(v.Set, i, i+1)
	}
}

// clone returns a copy that may be changed.
func (v Values) clone() Values {
	v.Set = slices.Clone(v.Set)
	return v
}

// diff returns, in order, the keys that w sets or changes, and those it no longer has.
func (v Values) diff(w Values) (set, unset []string) {
	for _, value := range w.Set {
		if old, ok := v.get(value.Key); !ok || !bytes.Equal(old, value.JSON) {
			set = append(set, value.Key)
		}
	}
	for _, value := range v.Set {
		if _, ok := w.find(value.Key); !ok {
			unset = append(unset, value.Key)
		}
	}
	return set, unset
}

// size is the length of the values as one JSON object.
func (v Values) size() int {
	n := len(`{}`)
	for _, value := range v.Set {
		n += len(`"":,`) + len(value.Key) + len(value.JSON)
	}
	return n
}

// Source says where an effective value comes from.
type Source string

// The sources of effective values.
const (
	FromDefault Source = "default"
	FromUser    Source = "user"
)

// Effective is a preference as it holds for a user.
type Effective struct {
	Key    string
	Value  json.RawMessage
	Source Source
}

// Preferences are all that hold for a user: the defaults, overlaid with what the user set.
type Preferences struct {
	Tag       string // differs whenever they do: derived from the user's version and the catalogue
	catalogue Catalogue
	values    Values
}

func effective(c Catalogue, v Values) Preferences {
	return Preferences{Tag: strconv.FormatInt(v.Version, 10) + "-" + c.Tag, catalogue: c, values: v}
}

// All yields them in the order of their keys.
func (p Preferences) All(yield func(Effective) bool) {
	set := p.values.Set
	for i := range p.catalogue.Definitions {
		d := &p.catalogue.Definitions[i]
		for len(set) > 0 && set[0].Key < d.Key { // defined when the values were read, but not when the catalogue was
			set = set[1:]
		}
		e := Effective{Key: d.Key, Value: d.Default, Source: FromDefault}
		if len(set) > 0 && set[0].Key == d.Key {
			e.Value, e.Source = set[0].JSON, FromUser
		}
		if !yield(e) {
			return
		}
	}
}

// The module's errors.
var (
	ErrNotDefined = errs.New(errs.NotFound, "preference_not_defined", "There is no definition with this key.")
	ErrInUse      = errs.New(errs.Conflict, "preference_in_use", "Users have set this preference.")
	ErrBreaks     = errs.New(errs.Conflict, "preference_schema_breaks_values", "Stored values do not satisfy the new schema.")
	ErrTooMany    = errs.New(errs.Conflict, "preference_definitions_too_many", "There are 256 definitions, and there may be no more.")
	ErrTooLarge   = errs.New(errs.Invalid, "preferences_too_large", "A user's preferences may take at most 65536 bytes of JSON together.")
)

// inUse is ErrInUse with the number of users.
func inUse(users int64) error {
	return errs.New(ErrInUse.Kind, ErrInUse.Code, fmt.Sprintf(
		"%d users have set this preference; it can be removed when none has.", users))
}

// breaks is ErrBreaks with the number of values.
func breaks(values int64) error {
	return errs.New(ErrBreaks.Kind, ErrBreaks.Code, fmt.Sprintf(
		"%d stored values do not satisfy the new schema; nothing was changed.", values))
}

// NewDefinition is what a definition is made or replaced from.
type NewDefinition struct {
	Schema      json.RawMessage
	Default     json.RawMessage
	Description string
}

// check compacts the schema and the default, and reports every violation at once. Errors: errs.ErrInvalid with Fields.
func (n *NewDefinition) check() error {
	var fields []errs.Field
	if utf8.RuneCountInString(n.Description) > MaxDescription {
		fields = append(fields, errs.Field{Pointer: "/description", Code: "too_long", Message: "Must have at most 1000 characters."})
	}
	var value any
	var bad []errs.Field
	n.Default, value, bad = normalize("/default", n.Default, MaxDefault)
	fields = append(fields, bad...)
	validDefault := len(bad) == 0
	var document any
	n.Schema, document, bad = normalize("/schema", n.Schema, MaxSchema)
	if len(bad) == 0 {
		var compiled *schema
		if compiled, bad = compile("/schema", document); compiled != nil && validDefault {
			bad = compiled.violations("/default", value)
		}
	}
	return errs.Violated(append(fields, bad...))
}

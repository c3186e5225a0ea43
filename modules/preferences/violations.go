package preferences

import (
	"cmp"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/strata-accounts/strata/platform/errs"
)

// maxViolations is how many violations of one value are reported.
const maxViolations = 100

// fieldsOf turns the library's findings into violations at pointers below base. Its own messages repeat the rejected
// value, ours never do.
func fieldsOf(base string, err *jsonschema.ValidationError) []errs.Field {
	fields := appendFields(nil, base, err)
	// The library walks maps: give the same value the same answer.
	slices.SortFunc(fields, func(a, b errs.Field) int {
		return cmp.Or(strings.Compare(a.Pointer, b.Pointer), strings.Compare(a.Code, b.Code), strings.Compare(a.Message, b.Message))
	})
	fields = slices.Compact(fields)
	return fields[:min(len(fields), maxViolations)]
}

func appendFields(fields []errs.Field, base string, err *jsonschema.ValidationError) []errs.Field {
	at := pointerTo(base, err.InstanceLocation...)
	each := func(names []string, code, message string) []errs.Field {
		for _, name := range names {
			fields = append(fields, errs.Field{Pointer: pointerTo(at, name), Code: code, Message: message})
		}
		return fields
	}
	switch k := err.ErrorKind.(type) {
	case *kind.Schema, *kind.Group, *kind.AllOf, *kind.Reference:
		for _, cause := range err.Causes {
			fields = appendFields(fields, base, cause)
		}
		return fields
	case *kind.Required:
		return each(k.Missing, "required", "Is required.")
	case *kind.DependentRequired:
		return each(k.Missing, "required", "Is required beside "+k.Prop+".")
	case *kind.AdditionalProperties:
		return each(k.Properties, "unknown_member", "Is a member that the schema does not allow.")
	case *kind.PropertyNames:
		return each([]string{k.Property}, "member_name", "Has a name that the schema does not allow.")
	}
	code, message := describe(err.ErrorKind)
	return append(fields, errs.Field{Pointer: at, Code: code, Message: message})
}

// describe puts a broken keyword into a code and words, with what the schema asks for and never what it got.
func describe(k jsonschema.ErrorKind) (code, message string) {
	switch k := k.(type) {
	case *kind.Type:
		return "type", "Must be of type " + strings.Join(k.Want, " or ") + "."
	case *kind.Enum, *kind.Const:
		return "not_allowed", "Must be one of the values that the schema lists."
	case *kind.Format:
		if k.Want == "regex" {
			return "format", "Must be a regular expression in RE2's syntax, and not too large."
		}
		return "format", "Must have the format " + k.Want + "."
	case *kind.Pattern:
		return "pattern", "Must match " + k.Want + " (RE2)."
	case *kind.FalseSchema:
		return "not_allowed", "Is not allowed by the schema."
	case *kind.Not:
		return "not_allowed", "Is of a form that the schema rules out."
	case *kind.AnyOf:
		return "not_allowed", "Matches none of the forms that the schema allows."
	case *kind.OneOf:
		return "not_allowed", "Must match exactly one of the forms that the schema lists."
	case *kind.RefCycle:
		return "schema", "The schema refers to itself without end."
	}
	return describeSize(k)
}

func describeSize(k jsonschema.ErrorKind) (code, message string) {
	switch k := k.(type) {
	case *kind.MinLength:
		return "too_short", "Must have at least " + count(k.Want, "character") + "."
	case *kind.MaxLength:
		return "too_long", "Must have at most " + count(k.Want, "character") + "."
	case *kind.MinItems:
		return "too_few", "Must have at least " + count(k.Want, "element") + "."
	case *kind.MaxItems:
		return "too_many", "Must have at most " + count(k.Want, "element") + "."
	case *kind.MinProperties:
		return "too_few", "Must have at least " + count(k.Want, "member") + "."
	case *kind.MaxProperties:
		return "too_many", "Must have at most " + count(k.Want, "member") + "."
	case *kind.UniqueItems:
		return "not_unique", "Its elements must differ."
	case *kind.Contains, *kind.MinContains, *kind.MaxContains:
		return "elements", "Must have another number of elements of the form that the schema's contains asks for."
	case *kind.Minimum:
		return "too_small", "Must be at least " + decimal(k.Want) + "."
	case *kind.ExclusiveMinimum:
		return "too_small", "Must be more than " + decimal(k.Want) + "."
	case *kind.Maximum:
		return "too_large", "Must be at most " + decimal(k.Want) + "."
	case *kind.ExclusiveMaximum:
		return "too_large", "Must be less than " + decimal(k.Want) + "."
	case *kind.MultipleOf:
		return "not_multiple", "Must be a multiple of " + decimal(k.Want) + "."
	}
	return "schema", "Does not satisfy the schema."
}

// decimal renders a bound as the schema's author would write it.
func decimal(r *big.Rat) string {
	f, _ := r.Float64()
	return strconv.FormatFloat(f, 'g', -1, 64)
}

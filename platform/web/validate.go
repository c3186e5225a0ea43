package web

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"github.com/strata-accounts/strata/platform/errs"
)

// codeType is the code of a value that is of another type than its member, so that the body cannot be decoded.
const codeType = "type"

// huma is customised through package variables. Its messages become our codes and words, in the form
// code|message|member, where member completes the pointer. None repeats the rejected value.
func init() {
	huma.ValidateStrictCasing = true
	huma.DefaultArrayNullable = false
	huma.NewError = func(status int, _ string, _ ...error) huma.StatusError { return &Problem{Status: status} } // asked for its type

	validation.MsgUnexpectedProperty = "unknown_member|This call has no such member."
	validation.MsgExpectedRequiredProperty = "required|Is required.|%s"
	validation.MsgExpectedDependentRequiredProperty = "required|Is required.|%s%.0s"
	validation.MsgExpectedBoolean = "type|Must be true or false."
	validation.MsgExpectedNumber = "type|Must be a number."
	validation.MsgExpectedInteger = "type|Must be a whole number."
	validation.MsgExpectedString = "type|Must be a string."
	validation.MsgExpectedArray = "type|Must be an array."
	validation.MsgExpectedObject = "type|Must be an object."
	validation.MsgExpectedOneOf = "not_allowed|Must be one of: %s."
	validation.MsgExpectedConst = "not_allowed|Must be %v."
	validation.MsgExpectedMinimumNumber = "too_small|Must be at least %v."
	validation.MsgExpectedExclusiveMinimumNumber = "too_small|Must be more than %v."
	validation.MsgExpectedMaximumNumber = "too_large|Must be at most %v."
	validation.MsgExpectedExclusiveMaximumNumber = "too_large|Must be less than %v."
	validation.MsgExpectedNumberBeMultipleOf = "not_multiple|Must be a multiple of %v."
	validation.MsgExpectedMinLength = "too_short|Must have at least %d characters."
	validation.MsgExpectedMaxLength = "too_long|Must have at most %d characters."
	validation.MsgExpectedBePattern = "format|Must be %s."
	validation.MsgExpectedMatchPattern = "format|Does not have the form that the API's description asks for.%.0s"
	validation.MsgExpectedMinItems = "too_few|Must have at least %d elements."
	validation.MsgExpectedMaxItems = "too_many|Must have at most %d elements."
	validation.MsgExpectedMinProperties = "too_few|Must have at least %d members."
	validation.MsgExpectedMaxProperties = "too_many|Must have at most %d members."
	validation.MsgExpectedArrayItemsUnique = "not_unique|Its elements must differ."
	validation.MsgExpectedRFC3339DateTime = "format|Must be a date and time as RFC 3339 has it, such as 2026-01-31T12:00:00Z."
	validation.MsgExpectedRFC3339Date = "format|Must be a date such as 2026-01-31."
	validation.MsgExpectedRFC5322Email = "format|Must be an e-mail address.%.0s"
	validation.MsgExpectedRFC5322EmailBare = "format|Must be an e-mail address."
	validation.MsgExpectedRFC3986URI = "format|Must be a URI.%.0s"
	validation.MsgExpectedRFC3986AbsoluteURI = "format|Must be a URI with a scheme."
	validation.MsgExpectedMatchAtLeastOneSchema = "not_allowed|Matches none of the forms that this member may have."
	validation.MsgExpectedMatchExactlyOneSchema = "not_allowed|Matches none of the forms that this member may have."
}

// jsonEncode writes v as JSON for humans and programs: <, > and & stay as they are.
func jsonEncode(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// decodeJSON is json.Unmarshal with errors that can be shown: those that the schema lets through, such as 1e30 for an
// int64.
func decodeJSON(data []byte, v any) error {
	err := json.Unmarshal(data, v)
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) {
		return fmt.Errorf("%s|Is out of range or of another type.|%s", codeType, strings.ReplaceAll(mismatch.Field, ".", "/"))
	}
	if err != nil {
		return errors.New("format|Does not have the form that the API's description asks for.")
	}
	return nil
}

// validate holds a parsed body against its schema.
func validate(types huma.Registry, schema *huma.Schema, tree any) []errs.Field {
	schema = chosen(schema, tree)
	var res huma.ValidateResult
	huma.Validate(types, schema, huma.NewPathBuffer(nil, 0), huma.ModeWriteToServer, escapeNames(tree), &res)
	fields := forbiddenNulls(types, schema, tree, "")
	for _, err := range res.Errors {
		var d *huma.ErrorDetail
		if errors.As(err, &d) && len(fields) < maxFields {
			fields = append(fields, fieldOf(d.Message, d.Location))
		}
	}
	// huma walks maps: give the same request the same answer.
	slices.SortStableFunc(fields, func(a, b errs.Field) int { return strings.Compare(a.Pointer, b.Pointer) })
	return fields[:min(len(fields), maxFields)]
}

// chosen picks the schema of a OneOrMany that is meant, so that violations are found inside it: huma says of a oneOf
// only that nothing matched.
func chosen(s *huma.Schema, tree any) *huma.Schema {
	if len(s.OneOf) != 2 || s.OneOf[1].Type != huma.TypeArray {
		return s
	}
	if _, many := tree.([]any); !many {
		return s.OneOf[0]
	}
	return s.OneOf[1]
}

// forbiddenNulls finds optional members that are null and must not be, which huma takes for absent.
func forbiddenNulls(types huma.Registry, s *huma.Schema, tree any, pointer string) []errs.Field {
	for s != nil && s.Ref != "" {
		s = types.SchemaFromRef(s.Ref)
	}
	if s == nil {
		return nil
	}
	var out []errs.Field
	switch v := tree.(type) {
	case map[string]any:
		for name, member := range v {
			ms := s.Properties[name]
			if ms == nil {
				continue
			}
			at := pointer + "/" + pointerToken(name)
			if member == nil && !ms.Nullable && ms.Type != "" && !slices.Contains(s.Required, name) {
				out = append(out, errs.Field{Pointer: at, Code: "null", Message: "Must not be null."})
			}
			out = append(out, forbiddenNulls(types, ms, member, at)...)
		}
	case []any:
		for i, element := range v {
			out = append(out, forbiddenNulls(types, s.Items, element, pointer+"/"+strconv.Itoa(i))...)
		}
	}
	return out
}

// fieldOf makes a violation of the body out of one of huma's messages and its location.
func fieldOf(message, location string) errs.Field {
	code, words, member := cutMessage(message)
	pointer := pointerAt(location)
	if member != "" {
		pointer += "/" + member
	}
	return errs.Field{Pointer: pointer, Code: code, Message: words}
}

// cutMessage takes apart code|message|member. Messages of huma's that init leaves alone say nothing to the client.
func cutMessage(message string) (code, words, member string) {
	parts := strings.SplitN(message, "|", 3)
	switch len(parts) {
	case 2:
		return parts[0], parts[1], ""
	case 3:
		return parts[0], parts[1], parts[2]
	}
	return "format", "Does not have the form that the API's description asks for.", ""
}

// huma joins the names on the way to a violation (items[3].tags) and takes them apart again at dots and brackets. Those
// in names have to go, or its location grows with every member that has one, until a body of a megabyte takes gigabytes.
var (
	escapedName = strings.NewReplacer("%", "%25", ".", "%2E", "[", "%5B", "]", "%5D")
	plainName   = strings.NewReplacer("%25", "%", "%2E", ".", "%5B", "[", "%5D", "]", "%", "")
)

const emptyName = "%" // as it would vanish

// escapeNames returns the tree with names that stay whole in locations. Those of schemas are so anyway.
func escapeNames(tree any) any {
	switch v := tree.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, member := range v {
			out[cmp.Or(escapedName.Replace(name), emptyName)] = escapeNames(member)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, element := range v {
			out[i] = escapeNames(element)
		}
		return out
	}
	return tree
}

// pointerAt turns huma's location in a tree with escaped names into a JSON pointer.
func pointerAt(location string) string {
	var pointer strings.Builder
	for token := range strings.FieldsFuncSeq(location, func(r rune) bool { return strings.ContainsRune(".[]", r) }) {
		pointer.WriteString("/" + pointerToken(plainName.Replace(token)))
	}
	return pointer.String()
}

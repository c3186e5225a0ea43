package preferences

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/web"
)

// normalize takes insignificant white space out of a JSON text of at most limit bytes, and decodes it as web.DecodeValue does.
func normalize(pointer string, text json.RawMessage, limit int) (json.RawMessage, any, []errs.Field) {
	if len(text) == 0 {
		return nil, nil, []errs.Field{{Pointer: pointer, Code: "required", Message: "Is required."}}
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return nil, nil, []errs.Field{{Pointer: pointer, Code: "format", Message: "Must be JSON."}}
	}
	if compact.Len() > limit {
		return nil, nil, []errs.Field{{Pointer: pointer, Code: "too_long", Message: fmt.Sprintf("Must have at most %d bytes of compact JSON.", limit)}}
	}
	value, err := web.DecodeValue(compact.Bytes())
	if err != nil {
		return nil, nil, []errs.Field{{Pointer: pointer, Code: "format", Message: "Must be JSON."}}
	}
	if code, message := unfit(value, MaxDepth); code != "" {
		return nil, nil, []errs.Field{{Pointer: pointer, Code: code, Message: message}}
	}
	return compact.Bytes(), value, nil
}

// unfit says why a decoded value cannot be worked with: it nests deeper than depth levels, or holds a number that is no
// double. Exact arithmetic on 1e-999999999, which validation would do, ends in a crash or never.
func unfit(value any, depth int) (code, message string) {
	switch v := value.(type) {
	case json.Number:
		if f, err := v.Float64(); err != nil || f == 0 && strings.ContainsAny(mantissa(v), "123456789") {
			return "out_of_range", "Must not hold a number that does not fit a double."
		}
	case []any:
		if depth == 0 {
			return "too_deep", fmt.Sprintf("Must nest at most %d levels deep.", MaxDepth)
		}
		for _, item := range v {
			if code, message := unfit(item, depth-1); code != "" {
				return code, message
			}
		}
	case map[string]any:
		if depth == 0 {
			return "too_deep", fmt.Sprintf("Must nest at most %d levels deep.", MaxDepth)
		}
		for _, member := range v {
			if code, message := unfit(member, depth-1); code != "" {
				return code, message
			}
		}
	}
	return "", ""
}

// mantissa is a number without its exponent.
func mantissa(n json.Number) string {
	if i := strings.IndexAny(string(n), "eE"); i >= 0 {
		return string(n[:i])
	}
	return string(n)
}

// maxPointerToken bounds how much of a member's name, which is of the client's own choosing, a pointer repeats.
const maxPointerToken = 64

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// pointerTo extends a JSON pointer (RFC 6901) by these reference tokens.
func pointerTo(base string, tokens ...string) string {
	var b strings.Builder
	b.WriteString(base)
	for _, token := range tokens {
		if len(token) > maxPointerToken {
			token = strings.ToValidUTF8(token[:maxPointerToken], "") + "…"
		}
		b.WriteByte('/')
		b.WriteString(pointerEscapes.Replace(token))
	}
	return b.String()
}

// count renders a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

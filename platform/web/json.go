package web

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/strata-accounts/strata/platform/errs"
)

// maxDepth is how deep a JSON body may nest.
const maxDepth = 32

// maxFields is how many violations of one body are reported.
const maxFields = 100

// Errors of bodies that are not JSON as RFC 8259 and RFC 7493 (I-JSON) have it.
var (
	errJSONMalformed = errs.New(errs.Malformed, "json_malformed", "The body is not valid JSON.")
	errJSONEncoding  = errs.New(errs.Malformed, "json_encoding", "The body is not valid UTF-8, or holds an unpaired surrogate.")
	errJSONDepth     = errs.New(errs.Malformed, "json_too_deep", "The body nests deeper than 32 levels.")
)

// parseJSON reads one JSON value into maps, slices, strings, float64s and bools, as encoding/json would, and finds what
// encoding/json overlooks: duplicate members, NUL in strings (PostgreSQL cannot store it), numbers beyond float64,
// unpaired surrogates, and nesting made to exhaust the stack.
func parseJSON(data []byte) (any, []errs.Field, error) {
	if !utf8.Valid(data) {
		return nil, nil, errJSONEncoding
	}
	p := &jsonParser{data: string(data)}
	v, err := p.value(0)
	if err == nil {
		p.space()
		if p.pos != len(p.data) {
			err = errJSONMalformed
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return v, p.fields, nil
}

type jsonParser struct {
	data   string
	pos    int
	path   []string // reference tokens of the value being read, escaped
	fields []errs.Field
}

func (p *jsonParser) violation(code, message string) {
	if len(p.fields) < maxFields {
		p.fields = append(p.fields, errs.Field{Pointer: "/" + strings.Join(p.path, "/"), Code: code, Message: message})
	}
}

func (p *jsonParser) space() {
	for p.pos < len(p.data) && strings.IndexByte(" \t\r\n", p.data[p.pos]) >= 0 {
		p.pos++
	}
}

// next skips white space and returns the byte that follows; 0 at the end, which no JSON text has outside a string.
func (p *jsonParser) next() byte {
	p.space()
	if p.pos == len(p.data) {
		return 0
	}
	return p.data[p.pos]
}

func (p *jsonParser) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, errJSONDepth
	}
	switch c := p.next(); c {
	case '{':
		return p.object(depth)
	case '[':
		return p.array(depth)
	case '"':
		s, err := p.text()
		if err == nil && strings.IndexByte(s, 0) >= 0 {
			p.violation("not_text", "Must not contain NUL.")
		}
		return s, err
	case 't':
		return true, p.literal("true")
	case 'f':
		return false, p.literal("false")
	case 'n':
		return nil, p.literal("null")
	default:
		return p.number()
	}
}

func (p *jsonParser) literal(want string) error {
	if !strings.HasPrefix(p.data[p.pos:], want) {
		return errJSONMalformed
	}
	p.pos += len(want)
	return nil
}

func (p *jsonParser) object(depth int) (any, error) {
	p.pos++ // {
	out := map[string]any{}
	if p.next() == '}' {
		p.pos++
		return out, nil
	}
	for {
		if p.next() != '"' {
			return nil, errJSONMalformed
		}
		name, err := p.text()
		if err != nil {
			return nil, err
		}
		if p.next() != ':' {
			return nil, errJSONMalformed
		}
		p.pos++
		if err := p.member(out, name, depth); err != nil {
			return nil, err
		}
		if done, err := p.more('}'); done || err != nil {
			return out, err
		}
	}
}

// member reads the value of one member of an object.
func (p *jsonParser) member(into map[string]any, name string, depth int) error {
	p.path = append(p.path, pointerToken(name))
	defer func() { p.path = p.path[:len(p.path)-1] }()
	if _, duplicate := into[name]; duplicate {
		p.violation("duplicate_member", "Must be given once.")
	}
	if strings.IndexByte(name, 0) >= 0 {
		p.violation("not_text", "The member's name must not contain NUL.")
	}
	v, err := p.value(depth + 1)
	into[name] = v
	return err
}

func (p *jsonParser) array(depth int) (any, error) {
	p.pos++ // [
	out := []any{}
	if p.next() == ']' {
		p.pos++
		return out, nil
	}
	for {
		p.path = append(p.path, strconv.Itoa(len(out)))
		v, err := p.value(depth + 1)
		p.path = p.path[:len(p.path)-1]
		if err != nil {
			return nil, err
		}
		out = append(out, v)
		if done, err := p.more(']'); done || err != nil {
			return out, err
		}
	}
}

// more takes the comma before another element, or the end of the object or array.
func (p *jsonParser) more(end byte) (done bool, err error) {
	switch p.next() {
	case ',':
		p.pos++
		return false, nil
	case end:
		p.pos++
		return true, nil
	}
	return false, errJSONMalformed
}

func (p *jsonParser) number() (any, error) {
	start := p.pos
	for p.pos < len(p.data) && strings.IndexByte("+-.0123456789eE", p.data[p.pos]) >= 0 {
		p.pos++
	}
	s := p.data[start:p.pos]
	if !isJSONNumber(s) {
		return nil, errJSONMalformed
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil { // its grammar has been checked
		p.violation(codeType, "Is a number out of range.")
	}
	return f, nil
}

// isJSONNumber tells JSON's numbers from what else ParseFloat takes, such as +1, .5, 01 and 1.
func isJSONNumber(s string) bool {
	s = strings.TrimPrefix(s, "-")
	whole := len(s) - len(strings.TrimLeft(s, "0123456789"))
	if whole == 0 || whole > 1 && s[0] == '0' {
		return false
	}
	s = s[whole:]
	if strings.HasPrefix(s, ".") {
		fraction := strings.TrimLeft(s[1:], "0123456789")
		if len(fraction) == len(s)-1 {
			return false
		}
		s = fraction
	}
	if s == "" {
		return true
	}
	if s[0] != 'e' && s[0] != 'E' {
		return false
	}
	exponent := s[1:]
	if exponent != "" && (exponent[0] == '+' || exponent[0] == '-') {
		exponent = exponent[1:]
	}
	return exponent != "" && strings.Trim(exponent, "0123456789") == ""
}

// text reads a string; p is at its opening quote.
func (p *jsonParser) text() (string, error) {
	p.pos++
	start := p.pos
	var b *strings.Builder // only once there is an escape
	for p.pos < len(p.data) {
		switch c := p.data[p.pos]; {
		case c == '"':
			s := p.data[start:p.pos]
			p.pos++
			if b == nil {
				return s, nil
			}
			b.WriteString(s)
			return b.String(), nil
		case c < ' ':
			return "", errJSONMalformed
		case c == '\\':
			if b == nil {
				b = &strings.Builder{}
			}
			b.WriteString(p.data[start:p.pos])
			if err := p.escape(b); err != nil {
				return "", err
			}
			start = p.pos
		default:
			p.pos++
		}
	}
	return "", errJSONMalformed
}

// escape reads one escape sequence; p is at its backslash.
func (p *jsonParser) escape(b *strings.Builder) error {
	if p.pos+1 >= len(p.data) {
		return errJSONMalformed
	}
	c := p.data[p.pos+1]
	if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 {
		b.WriteByte("\"\\/\b\f\n\r\t"[i])
		p.pos += 2
		return nil
	}
	r, ok := p.unit()
	if !ok {
		return errJSONMalformed
	}
	if utf16.IsSurrogate(r) {
		low, ok := p.unit()
		if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
			return errJSONEncoding
		}
	}
	b.WriteRune(r)
	return nil
}

// unit reads one \uXXXX.
func (p *jsonParser) unit() (rune, bool) {
	if len(p.data) < p.pos+6 || p.data[p.pos:p.pos+2] != `\u` {
		return 0, false
	}
	n, err := strconv.ParseUint(p.data[p.pos+2:p.pos+6], 16, 16)
	if err != nil {
		return 0, false
	}
	p.pos += 6
	return rune(n), true
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// pointerToken escapes a member's name for a JSON pointer (RFC 6901).
func pointerToken(name string) string { return pointerEscapes.Replace(printable(name)) }

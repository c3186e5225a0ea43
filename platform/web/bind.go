package web

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"github.com/strata-accounts/strata/platform/errs"
)

// A parameter is the field of an input that a part of the path, of the query, or a header fills. What its tags say has
// been read at start.
type parameter struct {
	in       string // "path", "query" or "header"
	name     string
	field    []int
	required bool
	fallback string // for a parameter that is absent or empty
	schema   *huma.Schema
	free     bool // the schema says no more than the field's type
}

// parametersOf finds the parameters of an input. It panics on what it could not fill.
func parametersOf(types huma.Registry, in reflect.Type) []parameter {
	var out []parameter
	for _, f := range reflect.VisibleFields(in) {
		for _, place := range []string{"path", "query", "header"} {
			name := f.Tag.Get(place)
			if name == "" {
				continue
			}
			p := parameter{in: place, name: name, field: f.Index, fallback: f.Tag.Get("default"), schema: huma.SchemaFromField(types, f, "")}
			p.required = place == "path" || f.Tag.Get("required") == "true"
			p.free = isFree(p.schema)
			if place == "header" {
				p.name = http.CanonicalHeaderKey(name)
			}
			if _, err := p.parse(reflect.New(f.Type).Elem(), ""); errors.Is(err, errUnfit) {
				panic(fmt.Sprintf("parameter %s: %s", name, err))
			}
			out = append(out, p)
		}
	}
	return out
}

// isFree reports whether every value of a parameter's type conforms to its schema.
func isFree(s *huma.Schema) bool {
	return (s.Type == huma.TypeString || s.Type == huma.TypeBoolean) &&
		len(s.Enum) == 0 && s.Format == "" && s.Pattern == "" && s.MinLength == nil && s.MaxLength == nil
}

// bind fills the parameters, and returns the rules that they break, or ErrNotFound for a path that cannot lead anywhere.
func (r *route) bind(c *gin.Context, in reflect.Value) ([]errs.Field, error) {
	var broken []errs.Field
	for i := range r.parameters {
		p := &r.parameters[i]
		value := p.value(c)
		if value == "" && !p.required {
			continue
		}
		f, ok := p.fill(r.types(), in.FieldByIndex(p.field), value)
		if ok {
			continue
		}
		if p.in == "path" {
			return nil, ErrNotFound // nothing can be there
		}
		broken = append(broken, f...)
	}
	return broken, nil
}

// value returns what the request says, or else the default.
func (p *parameter) value(c *gin.Context) string {
	var value string
	switch p.in {
	case "path":
		value = c.Param(p.name)
	case "query":
		if c.Request.URL.RawQuery != "" {
			value = c.Query(p.name)
		}
	default:
		if values := c.Request.Header[p.name]; len(values) > 0 {
			value = values[0]
		}
	}
	if value == "" {
		return p.fallback
	}
	return value
}

// fill sets the field, unless the value breaks rules.
func (p *parameter) fill(types huma.Registry, field reflect.Value, value string) ([]errs.Field, bool) {
	if value == "" {
		return []errs.Field{{Param: p.name, Code: "required", Message: "Is required."}}, false
	}
	parsed, err := p.parse(field, value)
	if err != nil {
		return []errs.Field{{Param: p.name, Code: codeType, Message: "Is not of the type that this parameter has."}}, false
	}
	if p.free {
		return nil, true
	}
	v := validations.Get().(*validator) //nolint:errcheck,forcetypeassert // nothing else is in there
	defer v.free()
	huma.Validate(types, p.schema, v.path, huma.ModeWriteToServer, parsed, &v.result)
	var broken []errs.Field
	for _, err := range v.result.Errors {
		var d *huma.ErrorDetail
		if errors.As(err, &d) {
			code, words, _ := cutMessage(d.Message)
			broken = append(broken, errs.Field{Param: p.name, Code: code, Message: words})
		}
	}
	return broken, len(broken) == 0
}

// errUnfit reports a field of a type that no parameter can have.
var errUnfit = errors.New("of a type that is not supported")

// parse sets the field from the text of a request, and returns its value as the schema sees it.
func (p *parameter) parse(field reflect.Value, value string) (any, error) {
	switch field.Kind() {
	case reflect.String:
		field.SetString(value)
		if p.free {
			return nil, nil //nolint:nilnil // nobody looks at it
		}
		return value, nil
	case reflect.Bool:
		v, err := strconv.ParseBool(value)
		field.SetBool(v)
		return v, err
	case reflect.Int, reflect.Int64:
		v, err := strconv.ParseInt(value, 10, field.Type().Bits())
		field.SetInt(v)
		return v, err
	case reflect.Struct:
		if at, ok := field.Addr().Interface().(*time.Time); ok {
			v, err := time.Parse(time.RFC3339Nano, value)
			*at = v
			return value, err
		}
	default:
	}
	return nil, errUnfit
}

// validator is what huma needs to validate one value, used again and again.
type validator struct {
	path   *huma.PathBuffer
	result huma.ValidateResult
}

var validations = sync.Pool{New: func() any { return &validator{path: huma.NewPathBuffer(nil, 0)} }}

func (v *validator) free() {
	v.path.Reset()
	v.result.Reset()
	validations.Put(v)
}

// checkDefaults panics where a body's schema promises a default, which nothing would fill in.
func checkDefaults(id string, types huma.Registry, s *huma.Schema) {
	for s.Ref != "" {
		s = types.SchemaFromRef(s.Ref)
	}
	for name, member := range s.Properties {
		if member.Default != nil {
			panic(fmt.Sprintf("operation %s: member %s of the body has a default", id, name))
		}
	}
}

package preferences

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/web"
)

// Limits on what one validation may cost. A schema is small and may still take forever: a chain of thirty definitions,
// each of which refers to the next one twice, is evaluated a billion times.
const (
	maxSteps       = 200_000 // evaluations of a subschema, or the like; about a tenth of a second
	maxPattern     = 2_000   // instructions of a compiled regular expression
	patternPerStep = 100     // instructions times characters that count as one step
)

// schemaURL is where the compiler believes the schema to be. Nothing can be loaded from there, or from elsewhere.
const schemaURL = "https://preference.invalid/schema"

// draft is the only dialect that $schema may name.
const draft = "https://json-schema.org/draft/2020-12/schema"

// schema is a compiled JSON Schema. Formats are asserted; regular expressions have Go's syntax (RE2).
type schema struct {
	mu    sync.Mutex // one validation at a time: meter is part of the compiled schema
	meter *meter
	root  *jsonschema.Schema
}

// compile compiles a decoded schema, and reports what is wrong with it at pointers below pointer.
func compile(pointer string, document any) (*schema, []errs.Field) {
	object, ok := document.(map[string]any)
	if !ok {
		return nil, []errs.Field{{Pointer: pointer, Code: "type", Message: "Must be an object."}}
	}
	if dialect, ok := object["$schema"]; ok && dialect != draft && dialect != draft+"#" {
		return nil, []errs.Field{{Pointer: pointer + "/$schema", Code: "not_allowed", Message: "Must be " + draft + ", or absent."}}
	}
	s := &schema{meter: &meter{}}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(offline{})
	c.UseRegexpEngine(s.meter.compilePattern)
	c.AssertFormat()
	c.RegisterVocabulary(&jsonschema.Vocabulary{
		URL: "urn:strata:meter",
		Compile: func(*jsonschema.CompilerContext, map[string]any) (jsonschema.SchemaExt, error) {
			return s.meter, nil
		},
	})
	c.AssertVocabs()
	err := c.AddResource(schemaURL, document)
	if err == nil {
		s.root, err = c.Compile(schemaURL)
	}
	if err != nil {
		return nil, schemaFields(pointer, err)
	}
	return s, nil
}

// schemaFields says what is wrong with a schema, as far as the compiler tells where.
func schemaFields(pointer string, err error) []errs.Field {
	var malformed *jsonschema.SchemaValidationError
	if errors.As(err, &malformed) { // holds its cause without unwrapping to it
		err = malformed.Err
	}
	var invalid *jsonschema.ValidationError
	var load *jsonschema.LoadURLError
	switch {
	case errors.As(err, &invalid):
		return fieldsOf(pointer, invalid)
	case errors.As(err, &load):
		return []errs.Field{{Pointer: pointer, Code: "reference", Message: "Refers to another document; a schema must be complete in itself."}}
	}
	return []errs.Field{{Pointer: pointer, Code: "schema", Message: "Is not a valid JSON Schema: a reference, an identifier or an anchor in it is wrong."}}
}

// violations holds a decoded value against the schema. It returns nothing for one that satisfies it.
func (s *schema) violations(pointer string, value any) (fields []errs.Field) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if r := recover(); r == errTooCostly { //nolint:errorlint // a panic of ours, not an error that may be wrapped
			fields = []errs.Field{{Pointer: pointer, Code: "too_complex", Message: "Takes too long to hold against its schema."}}
		} else if r != nil {
			panic(r)
		}
	}()
	s.meter.left = maxSteps
	var invalid *jsonschema.ValidationError
	if errors.As(s.root.Validate(value), &invalid) {
		return fieldsOf(pointer, invalid)
	}
	return nil
}

// offline loads nothing: no schema makes the server read a file or call another.
type offline struct{}

func (offline) Load(string) (any, error) { return nil, errors.New("schemas are not loaded") }

var (
	errTooCostly = errors.New("validation takes too many steps")
	errPattern   = errors.New("not a regular expression, or too large")
)

// meter ends a validation that takes too long, by a panic: the library has no other way out. It hears of every
// evaluated subschema as a vocabulary that all of them use, and of every match of a pattern as the engine.
type meter struct{ left int }

func (m *meter) spend(steps int) {
	if m.left -= steps; m.left < 0 {
		panic(errTooCostly)
	}
}

// Validate implements jsonschema.SchemaExt.
func (m *meter) Validate(*jsonschema.ValidatorContext, any) { m.spend(1) }

// compilePattern implements jsonschema.RegexpEngine.
func (m *meter) compilePattern(s string) (jsonschema.Regexp, error) {
	parsed, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return nil, errPattern
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil || len(program.Inst) > maxPattern {
		return nil, errPattern
	}
	re, err := regexp.Compile(s)
	if err != nil {
		return nil, errPattern
	}
	return &pattern{re, len(program.Inst), m}, nil
}

// pattern is a regular expression whose matches are metered.
type pattern struct {
	*regexp.Regexp
	size  int
	meter *meter
}

// MatchString implements jsonschema.Regexp.
func (p *pattern) MatchString(s string) bool {
	p.meter.spend(1 + p.size*len(s)/patternPerStep)
	return p.Regexp.MatchString(s)
}

// schemas keeps compiled schemas by what they say, so that a kept one is never the wrong one.
type schemas struct {
	kept *lru.Cache[[sha256.Size]byte, *schema]
}

func newSchemas() *schemas {
	kept, err := lru.New[[sha256.Size]byte, *schema](2 * MaxDefinitions) // room for those that are being replaced
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &schemas{kept: kept}
}

// of returns the compiled schema of a stored definition.
func (s *schemas) of(d Definition) (*schema, error) {
	sum := sha256.Sum256(d.Schema)
	if kept, ok := s.kept.Get(sum); ok {
		return kept, nil
	}
	document, err := web.DecodeValue(d.Schema)
	if err != nil {
		return nil, fmt.Errorf("stored schema of %s: %w", d.Key, err)
	}
	compiled, fields := compile("", document)
	if compiled == nil {
		return nil, fmt.Errorf("stored schema of %s does not compile: %s", d.Key, fields[0].Message)
	}
	s.kept.Add(sum, compiled)
	return compiled, nil
}

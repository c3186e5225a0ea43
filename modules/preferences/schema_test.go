package preferences

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

func mustCompile(t *testing.T, text string) *schema {
	t.Helper()
	s, fields := compile("/schema", webtest.Decode(t, text))
	if s == nil {
		t.Fatalf("compile %s: %v", text, fields)
	}
	return s
}

// places renders violations as "pointer code".
func places(fields []errs.Field) []string {
	var out []string
	for _, f := range fields {
		out = append(out, f.Pointer+" "+f.Code)
	}
	return out
}

func TestCompileRefuses(t *testing.T) {
	for name, c := range map[string]struct{ schema, want string }{
		"no object":         {`true`, "/schema type"},
		"a wrong keyword":   {`{"type":"strin"}`, "/schema/type not_allowed"},
		"a wrong bound":     {`{"properties":{"a":{"minLength":-1}}}`, "/schema/properties/a/minLength too_small"},
		"another draft":     {`{"$schema":"http://json-schema.org/draft-07/schema#"}`, "/schema/$schema not_allowed"},
		"a remote ref":      {`{"$ref":"https://example.com/schema"}`, "/schema reference"},
		"a file":            {`{"$ref":"file:///etc/passwd"}`, "/schema reference"},
		"a relative ref":    {`{"$ref":"other"}`, "/schema reference"},
		"an own metaschema": {`{"$defs":{"a":{"$id":"x","$schema":"https://example.com/meta"}}}`, "/schema reference"},
		"a lost ref":        {`{"$ref":"#/$defs/nothing"}`, "/schema schema"},
		"a lost anchor":     {`{"$ref":"#nothing"}`, "/schema schema"},
		"a pattern":         {`{"pattern":"(?=x)"}`, "/schema/pattern format"},
		"a large pattern":   {`{"pattern":"((a{100}){10}){4}"}`, "/schema/pattern format"},
		"a member pattern":  {`{"patternProperties":{"[":{}}}`, "/schema/patternProperties/[ member_name"},
	} {
		s, fields := compile("/schema", webtest.Decode(t, c.schema))
		if s != nil || !slices.Equal(places(fields), []string{c.want}) {
			t.Errorf("%s: %v, want %s", name, fields, c.want)
		}
	}
}

func TestViolations(t *testing.T) {
	const editor = `{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"type": "object", "required": ["size"], "additionalProperties": false,
		"properties": {
			"size": {"type": "integer", "minimum": 1, "maximum": 8},
			"font": {"$ref": "#/$defs/name"},
			"rulers": {"type": "array", "items": {"multipleOf": 2}, "uniqueItems": true, "maxItems": 3},
			"mail": {"format": "email"}, "mode": {"enum": ["vi", "emacs"]}, "tag": {"anyOf": [{"const": 1}, {"type": "string"}]}
		},
		"$defs": {"name": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]*$"}}
	}`
	s := mustCompile(t, editor)
	for value, want := range map[string][]string{
		`{"size":8,"font":"mono","rulers":[2,4.0],"mail":"a@b.example","mode":"vi","tag":"x"}`: nil,
		`"secret"`:                           {"/editor type"},
		`{}`:                                 {"/editor/size required"},
		`{"size":1.5}`:                       {"/editor/size type"},
		`{"size":0,"a/b":1,"c":1}`:           {"/editor/a~1b unknown_member", "/editor/c unknown_member", "/editor/size too_small"},
		`{"size":9,"font":"S3CRET"}`:         {"/editor/font pattern", "/editor/font too_long", "/editor/size too_large"},
		`{"size":1,"font":"x"}`:              {"/editor/font too_short"},
		`{"size":1,"rulers":[3,2,2]}`:        {"/editor/rulers not_unique", "/editor/rulers/0 not_multiple"},
		`{"size":1,"rulers":[0,2,4,6]}`:      {"/editor/rulers too_many"},
		`{"size":1,"mail":"secret"}`:         {"/editor/mail format"},
		`{"size":1,"mode":"secret","tag":7}`: {"/editor/mode not_allowed", "/editor/tag not_allowed"},
	} {
		fields := s.violations("/editor", webtest.Decode(t, value))
		if !slices.Equal(places(fields), want) {
			t.Errorf("%s: %v, want %v", value, places(fields), want)
		}
		for _, f := range fields {
			if strings.Contains(strings.ToLower(f.Message), "secret") || strings.Contains(f.Message, "S3CRET") {
				t.Errorf("%s: the message repeats the value: %s", value, f.Message)
			}
		}
	}
}

// Every kind of failure that the library knows has words of ours: the fallback is for kinds it may learn.
func TestEveryKeywordIsDescribed(t *testing.T) {
	for keyword, c := range map[string][2]string{
		"not":                   {`{"not":{}}`, `1`},
		"false":                 {`{"properties":{"a":false}}`, `{"a":1}`},
		"oneOf":                 {`{"oneOf":[{},{}]}`, `1`},
		"allOf":                 {`{"allOf":[{"type":"string"}]}`, `1`},
		"contains":              {`{"contains":{"const":1}}`, `[]`},
		"minContains":           {`{"contains":{"const":1},"minContains":2}`, `[1]`},
		"maxContains":           {`{"contains":{"const":1},"maxContains":1}`, `[1,1]`},
		"minItems":              {`{"minItems":1}`, `[]`},
		"minProperties":         {`{"minProperties":1}`, `{}`},
		"maxProperties":         {`{"maxProperties":0}`, `{"a":1}`},
		"exclusiveMinimum":      {`{"exclusiveMinimum":1}`, `1`},
		"exclusiveMaximum":      {`{"exclusiveMaximum":1}`, `1`},
		"dependentRequired":     {`{"dependentRequired":{"a":["b"]}}`, `{"a":1}`},
		"dependentSchemas":      {`{"dependentSchemas":{"a":{"required":["b"]}}}`, `{"a":1}`},
		"propertyNames":         {`{"propertyNames":{"maxLength":1}}`, `{"ab":1}`},
		"if":                    {`{"if":{"type":"string"},"else":{"const":2}}`, `1`},
		"unevaluatedProperties": {`{"properties":{"a":{}},"unevaluatedProperties":false}`, `{"b":1}`},
		"unevaluatedItems":      {`{"prefixItems":[{}],"unevaluatedItems":false}`, `[1,2]`},
		"$ref to itself":        {`{"$ref":"#"}`, `1`},
	} {
		fields := mustCompile(t, c[0]).violations("", webtest.Decode(t, c[1]))
		if len(fields) == 0 || fields[0].Message == "Does not satisfy the schema." {
			t.Errorf("%s: %v", keyword, fields)
		}
	}
}

// A schema of a few hundred bytes, or a long string, must not keep a core busy.
func TestValidationIsBounded(t *testing.T) {
	chain := map[string]any{}
	for i := range 40 {
		next := map[string]any{"$ref": fmt.Sprintf("#/$defs/d%d", i+1)}
		chain[fmt.Sprintf("d%d", i)] = map[string]any{"allOf": []any{next, next}}
	}
	chain["d40"] = map[string]any{"type": "number"}
	doubling, err := json.Marshal(map[string]any{"$ref": "#/$defs/d0", "$defs": chain})
	if err != nil {
		t.Fatal(err)
	}
	deep := strings.Repeat(`{"c":`, 30) + `1` + strings.Repeat(`}`, 30)
	for name, c := range map[string]struct{ schema, value string }{
		"doubling":       {string(doubling), `1`},
		"negated":        {`{"not":` + string(doubling[:len(doubling)-1]) + `}}`, `1`},
		"recursive":      {`{"allOf":[{"properties":{"c":{"$ref":"#"}}},{"properties":{"c":{"$ref":"#"}}}]}`, deep},
		"member pattern": {`{"patternProperties":{"c":{"$ref":"#"},"^c":{"$ref":"#"}}}`, deep},
		"pattern":        {`{"pattern":"(x+x+){1,100}y$"}`, `"` + strings.Repeat("x", 60_000) + `"`},
	} {
		if name == "negated" { // its references point into what is negated
			c.schema = strings.ReplaceAll(c.schema, "#/$defs", "#/not/$defs")
		}
		fields := mustCompile(t, c.schema).violations("/at", webtest.Decode(t, c.value))
		if !slices.Equal(places(fields), []string{"/at too_complex"}) {
			t.Errorf("%s: %v", name, fields)
		}
	}
	// Whoever ran out of steps leaves them to the next.
	s := mustCompile(t, `{"allOf":[{"properties":{"c":{"$ref":"#"}}},{"properties":{"c":{"$ref":"#"}}}]}`)
	s.violations("", webtest.Decode(t, deep))
	if fields := s.violations("", webtest.Decode(t, `{"c":{"c":1}}`)); len(fields) > 0 {
		t.Errorf("after one that was too complex: %v", fields)
	}
}

// FuzzCompile takes any schema and any value: neither may end in a panic.
func FuzzCompile(f *testing.F) {
	for _, schema := range []string{
		`{"type":"object","properties":{"a":{"$ref":"#/$defs/b"}},"$defs":{"b":{"pattern":"^a+$"}}}`,
		`{"$id":"https://a.example/x","$anchor":"a","$defs":{"y":{"$id":"y","$dynamicAnchor":"d"}},"$dynamicRef":"#d"}`,
		`{"$id":"https://json-schema.org/draft/2020-12/schema","multipleOf":0.1,"minimum":1e308}`,
		`{"anyOf":[{"$id":"#a"},{"$schema":"https://json-schema.org/draft/2019-09/schema","$id":"b","$recursiveRef":"#"}]}`,
	} {
		f.Add(schema, `{"a":["b",1e-300]}`)
	}
	f.Fuzz(func(t *testing.T, schema, value string) {
		_, document, bad := normalize("", json.RawMessage(schema), MaxSchema)
		_, decoded, alsoBad := normalize("", json.RawMessage(value), MaxDefault)
		if len(bad)+len(alsoBad) > 0 {
			return
		}
		compiled, fields := compile("", document)
		if (compiled == nil) != (len(fields) > 0) {
			t.Fatalf("compiled %v with %v", compiled != nil, fields)
		}
		if compiled != nil {
			compiled.violations("", decoded)
		}
	})
}

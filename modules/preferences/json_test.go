package preferences

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// mustDecode decodes JSON of a test.
func mustDecode(t interface {
	Helper()
	Fatalf(string, ...any)
}, text string,
) any {
	t.Helper()
	value, err := decode([]byte(text))
	if err != nil {
		t.Fatalf("decode %s: %v", text, err)
	}
	return value
}

// The table of RFC 7396, appendix A.
func TestMergePatchAsInRFC7396(t *testing.T) {
	for _, c := range [][3]string{ // original, patch, result
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"b"}`, `["c"]`, `["c"]`},
		{`{"a":"foo"}`, `null`, `null`},
		{`{"a":"foo"}`, `"bar"`, `"bar"`},
		{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{}`, `{"a":[{"b":null}]}`, `{"a":[{"b":null}]}`},
	} {
		target := mustDecode(t, c[0])
		got := mergePatch(target, mustDecode(t, c[1]))
		if want := mustDecode(t, c[2]); !reflect.DeepEqual(got, want) {
			t.Errorf("%s patched with %s is %v, want %v", c[0], c[1], got, want)
		}
		if !reflect.DeepEqual(target, mustDecode(t, c[0])) {
			t.Errorf("%s patched with %s was itself changed", c[0], c[1])
		}
	}
}

// anyJSON generates decoded values that nest at most depth levels.
func anyJSON(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		kinds := 4
		if depth > 0 {
			kinds = 6
		}
		switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
		case 0:
			return nil
		case 1:
			return rapid.Bool().Draw(t, "bool")
		case 2:
			return json.Number(rapid.SampledFrom([]string{"0", "-1", "1.50", "1e3"}).Draw(t, "number"))
		case 3:
			return rapid.SampledFrom([]string{"", "a", "é~/"}).Draw(t, "string")
		case 4:
			return rapid.SliceOfN(anyJSON(depth-1), 0, 3).Draw(t, "array")
		default:
			return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c/d"}), anyJSON(depth-1), 0, 3).Draw(t, "object")
		}
	})
}

// The properties that make a merge patch one: applying it twice is applying it once, what it does not name stays, what
// it sets to null is gone.
func TestMergePatchProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		target, patch := anyJSON(3).Draw(t, "target"), anyJSON(3).Draw(t, "patch")
		once := mergePatch(target, patch)
		if twice := mergePatch(once, patch); !reflect.DeepEqual(once, twice) {
			t.Fatalf("once %v, twice %v", once, twice)
		}
		members, ok := patch.(map[string]any)
		result, _ := once.(map[string]any)
		if !ok {
			if !reflect.DeepEqual(once, patch) {
				t.Fatalf("a patch that is no object made %v", once)
			}
			return
		}
		before, _ := target.(map[string]any)
		for name, value := range before {
			if _, named := members[name]; !named && !reflect.DeepEqual(result[name], value) {
				t.Fatalf("%s, which the patch does not name, became %v", name, result[name])
			}
		}
		for name, value := range members {
			if _, present := result[name]; present == (value == nil) {
				t.Fatalf("%s in the patch is %v, and %v in the result", name, value, present)
			}
		}
	})
}

func TestNormalize(t *testing.T) {
	nested := func(levels int) string { return strings.Repeat("[", levels) + strings.Repeat("]", levels) }
	for _, c := range []struct{ text, want, code string }{
		{"{ \"b\" : 1.50 ,\n \"a\" : [ 1e300 ] }", `{"b":1.50,"a":[1e300]}`, ""},
		{"null", "null", ""},
		{"0e-999999999", "0e-999999999", ""},
		{nested(MaxDepth), nested(MaxDepth), ""},
		{`"` + strings.Repeat("x", 98) + `"`, `"` + strings.Repeat("x", 98) + `"`, ""},
		{`"` + strings.Repeat("x", 99) + `"`, "", "too_long"},
		{nested(MaxDepth + 1), "", "too_deep"},
		{"1e400", "", "out_of_range"},
		{`{"a":[-1e-999999999]}`, "", "out_of_range"},
		{"", "", "required"},
		{"{", "", "format"},
		{"1 2", "", "format"},
	} {
		text, value, fields := normalize("/at", json.RawMessage(c.text), 100)
		if c.code != "" {
			if len(fields) != 1 || fields[0].Code != c.code || fields[0].Pointer != "/at" {
				t.Errorf("normalize(%.50s): %v, want %s", c.text, fields, c.code)
			}
			continue
		}
		if len(fields) > 0 || string(text) != c.want || !reflect.DeepEqual(value, mustDecode(t, c.want)) {
			t.Errorf("normalize(%.50s) = %s, %v, %v", c.text, text, value, fields)
		}
	}
}

func TestPointerTo(t *testing.T) {
	for _, c := range []struct {
		tokens []string
		want   string
	}{
		{nil, "/theme"},
		{[]string{"a", "0"}, "/theme/a/0"},
		{[]string{"a/b", "m~n", ""}, "/theme/a~1b/m~0n/"},
		{[]string{strings.Repeat("é", 40)}, "/theme/" + strings.Repeat("é", 32) + "…"},
	} {
		if got := pointerTo("/theme", c.tokens...); got != c.want {
			t.Errorf("pointerTo(%q) = %q, want %q", c.tokens, got, c.want)
		}
	}
}

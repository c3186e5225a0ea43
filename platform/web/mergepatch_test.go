package web_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/strata-accounts/strata/platform/web"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

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
		target := webtest.Decode(t, c[0])
		got := web.MergeValue(target, webtest.Decode(t, c[1]))
		if want := webtest.Decode(t, c[2]); !reflect.DeepEqual(got, want) {
			t.Errorf("%s patched with %s is %v, want %v", c[0], c[1], got, want)
		}
		if !reflect.DeepEqual(target, webtest.Decode(t, c[0])) {
			t.Errorf("%s patched with %s was itself changed", c[0], c[1])
		}
	}
}

// The properties that make a merge patch one: applying it twice is applying it once, what it does not name stays, what
// it sets to null is gone.
func TestMergePatchProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		target, patch := webtest.AnyJSON(3).Draw(t, "target"), webtest.AnyJSON(3).Draw(t, "patch")
		once := web.MergeValue(target, patch)
		if twice := web.MergeValue(once, patch); !reflect.DeepEqual(once, twice) {
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

// TestMergePatchLeavesTextAlone: neither characters that HTML escapes nor the digits of numbers change on the way.
func TestMergePatchLeavesTextAlone(t *testing.T) {
	got, err := web.MergePatch(json.RawMessage(`{"a":"<b>&c>","n":1.50,"z":1}`), json.RawMessage(`{"l":[{"x":null}],"z":null}`))
	if want := `{"a":"<b>&c>","l":[{"x":null}],"n":1.50}`; err != nil || string(got) != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
	for _, c := range [][2]string{{`{`, `{}`}, {`{}`, `1 2`}, {``, `{}`}} {
		if got, err := web.MergePatch(json.RawMessage(c[0]), json.RawMessage(c[1])); err == nil {
			t.Errorf("%s patched with %s is %s", c[0], c[1], got)
		}
	}
}

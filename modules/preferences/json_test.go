package preferences

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/strata-accounts/strata/platform/web/webtest"
)

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
		if len(fields) > 0 || string(text) != c.want || !reflect.DeepEqual(value, webtest.Decode(t, c.want)) {
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

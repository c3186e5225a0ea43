package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/strata-accounts/strata/platform/errs"
)

// FuzzParseJSON holds the strict parser against encoding/json: it accepts a part of what that accepts, and reads the
// same values.
func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,-0.5e+3,true,false,null,"\u00e9\ud83d\ude00\n"]}`, `{"a":1,"a":2}`, `"\ud800"`, `"\u0000"`, `1e999`, `[[[]]]`,
		`01`, `-`, `{"a"}`, `[1,]`, "\"\xff\"", ` 1 `, `{"a/b~":"` + "\u2028" + `"}`, strings.Repeat("[", 40), `"`, `1 2`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, fields, err := parseJSON(data)
		var want any
		reference := json.Unmarshal(data, &want)
		if err != nil {
			if k := errs.KindOf(err); k != errs.Malformed {
				t.Fatalf("error of kind %v", k)
			}
			if reference == nil && errors.Is(err, errJSONMalformed) {
				t.Fatalf("malformed, but encoding/json reads %v", want)
			}
			return
		}
		if len(fields) > 0 {
			return // duplicates and numbers out of range: encoding/json goes its own ways
		}
		if reference != nil {
			t.Fatalf("accepted, but encoding/json says %v", reference)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("read %#v, encoding/json %#v", got, want)
		}
	})
}

func FuzzParseETags(f *testing.F) {
	for _, s := range []string{`*`, `"1"`, `W/"1"`, `"1", W/"2" ,"3"`, `"`, `,`, `W/`, `1`, `"a,b"`, `"1""2"`, "\"\x00\"", ` , "1",`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, ok := parseETags(s)
		if !ok {
			if err := (Conditional{IfMatch: s}).CheckWrite(`"1"`); s != "" && !errors.Is(err, ErrIfMatchMalformed) {
				t.Fatalf("malformed If-Match %q gives %v", s, err)
			}
			return
		}
		again, ok := parseETags(strings.Join(l.tags, ", "))
		if !l.any && (!ok || !reflect.DeepEqual(l, again)) {
			t.Fatalf("%q reads as %q, and that as %q", s, l.tags, again.tags)
		}
		if l.match("", weak) {
			t.Fatal("matches what does not exist")
		}
		if l.match(`"1"`, strong) && !l.match(`"1"`, weak) {
			t.Fatal("matches strongly but not weakly")
		}
	})
}

func FuzzCursor(f *testing.F) {
	good, err := EncodeCursor(f.Context(), "list", "filter", []string{"2026", "id"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good + "A")
	f.Add("")
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, cursor string) {
		var position []string
		found, err := DecodeCursor(t.Context(), "list", "filter", cursor, &position)
		switch {
		case cursor == "" || cursor == good:
			if err != nil || found != (cursor != "") {
				t.Fatalf("cursor %q: %v, %v", cursor, found, err)
			}
		case !errors.Is(err, ErrCursorInvalid):
			t.Fatalf("forged cursor %q: %v", cursor, err)
		}
		if _, err := DecodeCursor(t.Context(), "list", "other", cursor, &position); cursor != "" && !errors.Is(err, ErrCursorInvalid) {
			t.Fatalf("cursor of another filter: %v", err)
		}
	})
}

func FuzzOptional(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":null}`, `{"a":"x"}`, `{"a":1}`, `{"a":"\u0000","b":{"c":null}}`, `{"b":null,"a":"` + "\u2028" + `"}`} {
		f.Add([]byte(s))
	}
	type patch struct {
		A Optional[string] `json:"a,omitzero"`
		B Optional[struct {
			C Optional[int] `json:"c,omitzero"`
		}] `json:"b,omitzero"`
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var p patch
		tree, fields, err := parseJSON(data)
		members, isObject := tree.(map[string]any)
		if err != nil || len(fields) > 0 || !isObject || json.Unmarshal(data, &p) != nil {
			return
		}
		for name := range members {
			if name != "a" && name != "b" {
				return // refused before; encoding/json would match other cases
			}
		}
		a, present := members["a"]
		if p.A.Set != present || p.A.Null != (present && a == nil) || present && a != nil && p.A.Value != a {
			t.Fatalf("%s reads as %+v", data, p)
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var q patch
		if err := json.Unmarshal(again, &q); err != nil || !reflect.DeepEqual(p, q) {
			t.Fatalf("%s becomes %s, which reads as %+v (%v), want %+v", data, again, q, err, p)
		}
	})
}

// FuzzPointer: every violation points to a value of the body, or to a member that it lacks, whatever its name.
func FuzzPointer(f *testing.F) {
	f.Add("a.b", "c[0]")
	f.Add("a", "")
	f.Add("%", "%2E")
	types := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	schema := huma.SchemaFromType(types, reflect.TypeFor[map[string]map[string][]string]())
	f.Fuzz(func(t *testing.T, outer, inner string) {
		if !utf8.ValidString(outer+inner) || len(outer)+len(inner) > maxEchoedName {
			return
		}
		tree := map[string]any{outer: map[string]any{inner: []any{1.0}}}
		want := "/" + pointerToken(outer) + "/" + pointerToken(inner) + "/0"
		if got := validate(types, schema, tree); len(got) != 1 || got[0].Pointer != want {
			t.Fatalf("violations %+v, want one at %q", got, want)
		}
	})
}

func TestHandlersSeeOnlyTextInNames(t *testing.T) {
	if got := printable(strings.Repeat("é", maxEchoedName)); len(got) > maxEchoedName+len("…") || !utf8.ValidString(got) {
		t.Errorf("a long name is shown as %q", got)
	}
	if bytes.ContainsRune([]byte(printable("a\xffb")), 0xff) {
		t.Error("invalid UTF-8 is shown")
	}
}

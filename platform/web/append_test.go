package web_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/strata-accounts/strata/platform/web"
)

// FuzzAppendString: what is appended is what encoding/json reads as the same string.
func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "ada@example.com", `"\`, "<&>", "\x00\n\x7f", "é\u2028", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var a, b string
		if err := json.Unmarshal(want, &a); err != nil {
			t.Fatal(err)
		}
		got := web.AppendString([]byte("x"), s)
		if err := json.Unmarshal(got[1:], &b); err != nil || a != b {
			t.Errorf("%q became %s, which reads as %q: %v", s, got, b, err)
		}
	})
}

func TestAppendTime(t *testing.T) {
	at := time.Date(2026, 11, 23, 14, 5, 6, 789000, time.FixedZone("", 3600))
	want, err := json.Marshal(at.UTC())
	if err != nil {
		t.Fatal(err)
	}
	if got := web.AppendTime(nil, at); string(got) != string(want) {
		t.Errorf("%s, want %s", got, want)
	}
}

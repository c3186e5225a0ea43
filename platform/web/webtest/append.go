package webtest

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/strata-accounts/strata/platform/web"
)

// SameJSON fails the test where a value appends itself as other JSON than encoding/json makes of it.
func SameJSON(t testing.TB, v web.JSONAppender) {
	t.Helper()
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	if got := append(v.AppendJSON(nil), '\n'); !bytes.Equal(got, want.Bytes()) {
		t.Errorf("appends itself as\n%swhere encoding/json has\n%s", got, want.Bytes())
	}
}

package webtest

import (
	"encoding/json"

	"pgregory.net/rapid"

	"github.com/strata-accounts/strata/platform/web"
)

// Decode decodes JSON of a test, as web.DecodeValue does.
func Decode(t interface {
	Helper()
	Fatalf(string, ...any)
}, text string,
) any {
	t.Helper()
	value, err := web.DecodeValue([]byte(text))
	if err != nil {
		t.Fatalf("decode %s: %v", text, err)
	}
	return value
}

// AnyJSON generates decoded values that nest at most depth levels.
func AnyJSON(depth int) *rapid.Generator[any] {
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
			return rapid.SliceOfN(AnyJSON(depth-1), 0, 3).Draw(t, "array")
		default:
			return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c/d"}), AnyJSON(depth-1), 0, 3).Draw(t, "object")
		}
	})
}

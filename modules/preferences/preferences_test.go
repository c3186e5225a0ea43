package preferences

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestAllOverlaysValues holds the walk along two sorted lists against what it means: for each definition the user's
// value, or else the default. Values may be of keys that the catalogue does not have: each is read by itself.
func TestAllOverlaysValues(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	keys := strings.Split("a a- a. a0 a_ aa ab b z", " ")
	for range 2000 {
		var c Catalogue
		var v Values
		set := map[string]string{}
		for _, key := range keys {
			if random.IntN(2) == 0 {
				c.Definitions = append(c.Definitions, Definition{Key: key, Default: json.RawMessage(`"` + key + `"`)})
			}
		}
		for _, i := range random.Perm(len(keys)) {
			switch key := keys[i]; random.IntN(4) {
			case 0:
				v.set(key, json.RawMessage(`0`))
				v.unset(key)
			case 1:
				v.unset(key)
			case 2:
				v.set(key, json.RawMessage(`0`))
				fallthrough
			default:
				v.set(key, json.RawMessage(`1`))
				set[key] = `1`
			}
		}
		got, want := map[string]string{}, map[string]string{}
		for e := range effective(c, v).All {
			got[e.Key] = string(e.Value) + string(e.Source)
		}
		for _, d := range c.Definitions {
			want[d.Key] = string(d.Default) + string(FromDefault)
			if value, ok := set[d.Key]; ok {
				want[d.Key] = value + string(FromUser)
			}
		}
		if !maps.Equal(got, want) {
			t.Fatalf("of %v, set %v: %v, want %v", slices.Sorted(maps.Keys(want)), set, got, want)
		}
	}
}

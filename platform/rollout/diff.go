package rollout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/strata-accounts/strata/platform/errs"
)

// An outcome is what a read led to: a value as JSON, or the code of an error. Members that are json:"-" do not count.
type outcome struct {
	value []byte
	code  string
	err   error // behind the code
}

// outcomeOf returns what can be compared; false for the failure of a dependency, which is nobody's answer.
func outcomeOf(value any, err error) (outcome, bool) {
	if err != nil {
		e := errs.From(err)
		gone := e.Kind == errs.Unavailable || e.Kind == errs.Canceled || errors.Is(err, context.Canceled)
		return outcome{code: e.Code, err: err}, !gone
	}
	data, err := json.Marshal(value)
	return outcome{value: data}, err == nil
}

// A Difference is a place where two answers differ. It holds no values.
type Difference struct {
	Pointer string `json:"pointer" doc:"JSON pointer (RFC 6901) into the value; empty for the whole answer."`
	Kind    string `json:"kind" enum:"changed,missing,added,error" doc:"How the second answer differs from the first."`
}

const maxDifferences = 20 // of one report

// diff returns where b differs from a.
func diff(a, b outcome) []Difference {
	if a.code != b.code {
		return []Difference{{Kind: "error"}}
	}
	if bytes.Equal(a.value, b.value) {
		return nil
	}
	x, xerr := decode(a.value)
	y, yerr := decode(b.value)
	if xerr != nil || yerr != nil {
		return []Difference{{Kind: "changed"}}
	}
	var d differ
	d.walk("", x, y)
	return d.found
}

func decode(data []byte) (v any, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err = dec.Decode(&v); errors.Is(err, io.EOF) {
		return nil, nil //nolint:nilnil // nothing, as JSON's null
	}
	return v, err
}

type differ struct{ found []Difference }

func (d *differ) add(pointer, kind string) {
	if len(d.found) < maxDifferences {
		d.found = append(d.found, Difference{pointer, kind})
	}
}

// walk compares two values. What is empty is the same whether it is null or holds nothing: that is how Go encodes nil.
func (d *differ) walk(at string, a, b any) {
	if empty(a) && empty(b) {
		return
	}
	switch x := a.(type) {
	case map[string]any:
		if y, ok := b.(map[string]any); ok {
			d.objects(at, x, y)
			return
		}
	case []any:
		if y, ok := b.([]any); ok {
			d.arrays(at, x, y)
			return
		}
	default:
		if !container(b) && a == b {
			return
		}
	}
	d.add(at, "changed")
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return false
}

func container(v any) bool {
	switch v.(type) {
	case map[string]any, []any:
		return true
	}
	return false
}

func (d *differ) objects(at string, a, b map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if other, ok := b[name]; ok {
			d.walk(at+"/"+member(name), a[name], other)
		} else {
			d.add(at+"/"+member(name), "missing")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[name]; !ok {
			d.add(at+"/"+member(name), "added")
		}
	}
}

func (d *differ) arrays(at string, a, b []any) {
	for i := range max(len(a), len(b)) {
		place := at + "/" + strconv.Itoa(i)
		switch {
		case i >= len(b):
			d.add(place, "missing")
		case i >= len(a):
			d.add(place, "added")
		default:
			d.walk(place, a[i], b[i])
		}
	}
}

// member returns a member's name if it looks like one that a programmer gave. Others may be anything, such as an address.
func member(name string) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
	if name == "" || len(name) > 40 || strings.Trim(name, letters) != "" {
		return "*"
	}
	return name
}

package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
)

// MergePatch applies a JSON Merge Patch (RFC 7396, section 2) to a JSON text; what it does not name keeps its value, also
// the digits of a number. Errors: one of the two is no JSON.
func MergePatch(target, patch json.RawMessage) (json.RawMessage, error) {
	t, terr := DecodeValue(target)
	p, perr := DecodeValue(patch)
	if err := errors.Join(terr, perr); err != nil {
		return nil, err
	}
	return EncodeValue(MergeValue(t, p))
}

// MergeValue is MergePatch for decoded values. It leaves target as it is, and the result may share parts of it.
func MergeValue(target, patch any) any {
	members, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	result := map[string]any{}
	if object, ok := target.(map[string]any); ok {
		maps.Copy(result, object)
	}
	for name, value := range members {
		if value == nil {
			delete(result, name)
			continue
		}
		result[name] = MergeValue(result[name], value)
	}
	return result
}

// DecodeValue reads JSON into maps, slices, strings, bools and json.Numbers: numbers keep the precision they were given
// with. Errors: text is not one JSON value.
func DecodeValue(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	return value, nil
}

// EncodeValue is the inverse of DecodeValue.
func EncodeValue(value any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

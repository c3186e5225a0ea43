package cache

import (
	"reflect"
	"time"
)

// Fixed costs of an entry beyond its value: the map slot, the list element and the name.
const entryOverhead = 256

// sizeOf estimates the bytes that a value keeps alive: itself and what it points to, shared parts counted each time.
func sizeOf(v any) int64 {
	if v == nil {
		return entryOverhead
	}
	rv := reflect.ValueOf(v)
	return entryOverhead + sizeOfType(rv.Type()) + pointedTo(rv, 8)
}

// pointedTo returns the bytes behind v's pointers, depth levels down.
func pointedTo(v reflect.Value, depth int) (size int64) {
	if depth == 0 {
		return 0
	}
	switch v.Kind() {
	case reflect.String:
		return int64(v.Len())
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return 0
		}
		return sizeOfType(v.Elem().Type()) + pointedTo(v.Elem(), depth-1)
	case reflect.Slice:
		size = int64(v.Cap()) * sizeOfType(v.Type().Elem())
		if pointerFree(v.Type().Elem()) {
			return size
		}
		for i := range v.Len() {
			size += pointedTo(v.Index(i), depth-1)
		}
	case reflect.Array:
		for i := range v.Len() {
			if pointerFree(v.Type().Elem()) {
				return 0
			}
			size += pointedTo(v.Index(i), depth-1)
		}
	case reflect.Map:
		each := sizeOfType(v.Type().Key()) + sizeOfType(v.Type().Elem()) + 16
		for it := v.MapRange(); it.Next(); {
			size += each + pointedTo(it.Key(), depth-1) + pointedTo(it.Value(), depth-1)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return 0 // its location is shared by all times
		}
		for i := range v.NumField() {
			size += pointedTo(v.Field(i), depth-1)
		}
	default: // numbers and booleans lie in their holder
	}
	return size
}

func pointerFree(t reflect.Type) bool {
	return t.Kind() >= reflect.Bool && t.Kind() <= reflect.Complex128
}

func sizeOfType(t reflect.Type) int64 { return int64(t.Size()) } //nolint:gosec // far from overflowing

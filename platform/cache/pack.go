package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"time"
)

// Redis holds values packed: what their members hold, in the order in which they are declared, and nothing else. Whoever
// unpacks one knows its shape, which stands before it (see shape). JSON would take ten times as long to read, a fifth of
// what asking Redis takes. Members that are not exported are left out.

// errPacked says that what is to be unpacked is cut short, or no packed value at all.
var errPacked = errors.New("not a packed value")

var timeType = reflect.TypeFor[time.Time]()

// pack appends a value to b. Errors: it holds an interface, a function, a channel or a complex number.
func pack(b []byte, v reflect.Value) ([]byte, error) {
	switch v.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return append(b, 1), nil
		}
		return append(b, 0), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return binary.AppendVarint(b, v.Int()), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return binary.AppendUvarint(b, v.Uint()), nil
	case reflect.Float32, reflect.Float64:
		return binary.BigEndian.AppendUint64(b, math.Float64bits(v.Float())), nil
	case reflect.String:
		return append(appendLength(b, v.Len()), v.String()...), nil
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, 0), nil
		}
		return pack(append(b, 1), v.Elem())
	case reflect.Array:
		return packAll(b, v)
	case reflect.Slice:
		if v.IsNil() {
			return appendLength(b, -1), nil
		}
		return packAll(appendLength(b, v.Len()), v)
	case reflect.Map:
		return packMap(b, v)
	case reflect.Struct:
		return packStruct(b, v)
	default:
		return nil, fmt.Errorf("pack: a %s", v.Type())
	}
}

// appendLength appends the number of elements or bytes that follow; -1 for nil.
func appendLength(b []byte, n int) []byte { return binary.AppendVarint(b, int64(n)) }

func packAll(b []byte, v reflect.Value) (_ []byte, err error) {
	if v.Type().Elem().Kind() == reflect.Uint8 && (v.Kind() == reflect.Slice || v.CanAddr()) {
		return append(b, v.Bytes()...), nil
	}
	for i := range v.Len() {
		if v.Type().Elem().Kind() == reflect.Uint8 {
			b = append(b, byte(v.Index(i).Uint())) //nolint:gosec // a byte
		} else if b, err = pack(b, v.Index(i)); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func packMap(b []byte, v reflect.Value) (_ []byte, err error) {
	if v.IsNil() {
		return appendLength(b, -1), nil
	}
	b = appendLength(b, v.Len())
	for it := v.MapRange(); it.Next(); {
		if b, err = pack(b, it.Key()); err != nil {
			return nil, err
		}
		if b, err = pack(b, it.Value()); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func packStruct(b []byte, v reflect.Value) (_ []byte, err error) {
	if v.Type() == timeType {
		t, _ := v.Interface().(time.Time)
		return binary.AppendUvarint(binary.AppendVarint(b, t.Unix()), uint64(t.Nanosecond())), nil //nolint:gosec // positive
	}
	for i := range v.NumField() {
		if f := v.Field(i); f.CanInterface() {
			if b, err = pack(b, f); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

// An unpacker takes a packed value apart. Strings are parts of it, not copies.
type unpacker struct{ rest string }

// unpack sets what to points to. Errors: errPacked.
func unpack(packed string, to reflect.Value) error {
	u := unpacker{packed}
	if err := u.value(to.Elem()); err != nil {
		return err
	}
	if u.rest != "" {
		return errPacked
	}
	return nil
}

func (u *unpacker) value(v reflect.Value) error {
	switch v.Kind() {
	case reflect.Bool:
		flag, err := u.take(1)
		v.SetBool(flag == "\x01")
		return err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := u.varint()
		v.SetInt(n)
		return err
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := u.uvarint()
		v.SetUint(n)
		return err
	case reflect.Float32, reflect.Float64:
		bits, err := u.take(8)
		if err == nil {
			v.SetFloat(math.Float64frombits(binary.BigEndian.Uint64([]byte(bits))))
		}
		return err
	case reflect.String:
		n, err := u.length()
		if err != nil {
			return err
		}
		s, err := u.take(n)
		v.SetString(s)
		return err
	case reflect.Pointer:
		flag, err := u.take(1)
		if err != nil || flag == "\x00" {
			return err
		}
		v.Set(reflect.New(v.Type().Elem()))
		return u.value(v.Elem())
	case reflect.Array:
		return u.all(v)
	case reflect.Slice:
		return u.slice(v)
	case reflect.Map:
		return u.mapping(v)
	case reflect.Struct:
		return u.structure(v)
	default:
		return errPacked
	}
}

func (u *unpacker) slice(v reflect.Value) error {
	n, err := u.length()
	if err != nil || n < 0 {
		return err
	}
	v.Set(reflect.MakeSlice(v.Type(), n, n))
	return u.all(v)
}

func (u *unpacker) all(v reflect.Value) error {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		s, err := u.take(v.Len())
		copy(v.Bytes(), s)
		return err
	}
	for i := range v.Len() {
		if err := u.value(v.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) mapping(v reflect.Value) error {
	n, err := u.length()
	if err != nil || n < 0 {
		return err
	}
	t := v.Type()
	v.Set(reflect.MakeMapWithSize(t, n))
	for range n {
		key, value := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		if err := errors.Join(u.value(key), u.value(value)); err != nil {
			return err
		}
		v.SetMapIndex(key, value)
	}
	return nil
}

func (u *unpacker) structure(v reflect.Value) error {
	if t, ok := v.Addr().Interface().(*time.Time); ok {
		seconds, err := u.varint()
		if err != nil {
			return err
		}
		nanoseconds, err := u.uvarint()
		*t = time.Unix(seconds, int64(nanoseconds)) //nolint:gosec // below a second
		return err
	}
	for i := range v.NumField() {
		if f := v.Field(i); f.CanSet() {
			if err := u.value(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// length reads what appendLength has written. Nothing that has a length takes less than a byte an element.
func (u *unpacker) length() (int, error) {
	n, err := u.varint()
	if err != nil || n < -1 || n > int64(len(u.rest)) {
		return 0, errPacked
	}
	return int(n), nil
}

func (u *unpacker) take(n int) (string, error) {
	if n < 0 || n > len(u.rest) {
		return "", errPacked
	}
	s := u.rest[:n]
	u.rest = u.rest[n:]
	return s, nil
}

func (u *unpacker) uvarint() (uint64, error) {
	var n uint64
	for i := 0; i < len(u.rest) && i < binary.MaxVarintLen64; i++ {
		c := u.rest[i]
		n |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			u.rest = u.rest[i+1:]
			return n, nil
		}
	}
	return 0, errPacked
}

func (u *unpacker) varint() (int64, error) {
	n, err := u.uvarint()
	return int64(n>>1) ^ -int64(n&1), err
}

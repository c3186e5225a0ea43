package cache

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

type packable struct {
	Flag     bool
	Signed   int32
	Unsigned uint64
	Float    float64
	Text     string
	ID       uuid.UUID
	At       time.Time
	Raw      json.RawMessage
	Pointer  *string
	Later    *time.Time
	Rows     []struct{ Key *string }
	Map      map[string]json.RawMessage
	Inner    struct{ At time.Time }
	_        int // left out
}

func TestPack(t *testing.T) {
	text, at := "héllo", time.Now().Round(0)
	full := packable{
		Flag: true, Signed: -123456, Unsigned: 1<<64 - 1, Float: -1.5, Text: text, ID: uuid.New(), At: at, Raw: json.RawMessage(`{"a":1}`),
		Pointer: &text, Later: &at, Rows: []struct{ Key *string }{{&text}, {nil}}, Map: map[string]json.RawMessage{"k": []byte("v"), "": nil},
	}
	full.Inner.At = at
	emptied := packable{Raw: json.RawMessage{}, Rows: []struct{ Key *string }{}, Map: map[string]json.RawMessage{}}
	for name, want := range map[string]packable{"full": full, "zero": {}, "emptied": emptied} {
		packed, err := pack(nil, reflect.ValueOf(want))
		if err != nil {
			t.Fatal(err)
		}
		var got packable
		if err := unpack(string(packed), reflect.ValueOf(&got)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !got.At.Equal(want.At) {
			t.Errorf("%s: at %v, want %v", name, got.At, want.At)
		}
		for _, v := range []*packable{&got, &want} { // equal, if not of the same location
			v.At, v.Inner.At = v.At.UTC(), v.Inner.At.UTC()
		}
		if want.Later != nil && got.Later.Equal(*want.Later) {
			got.Later = want.Later
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
		for n := range packed { // never taken for a whole one
			if err := unpack(string(packed[:n]), reflect.ValueOf(&got)); err == nil {
				t.Errorf("%s: the first %d bytes of %d were taken", name, n, len(packed))
			}
		}
		for range 1000 { // whatever it says, it does not panic
			packed[rand.IntN(len(packed))] = byte(rand.Uint32())
			_ = unpack(string(packed), reflect.ValueOf(&got))
		}
	}
}

func TestPackRefuses(t *testing.T) {
	for _, v := range []any{struct{ F any }{1}, struct{ F func() }{}, []chan int{nil}} {
		if _, err := pack(nil, reflect.ValueOf(v)); err == nil || !strings.HasPrefix(err.Error(), "pack: a ") {
			t.Errorf("%T: %v", v, err)
		}
	}
}

func TestShapesDiffer(t *testing.T) {
	seen := map[string]reflect.Type{}
	for _, v := range []any{
		struct{ A, B string }{},
		struct{ B, A string }{},
		struct{ A string }{},
		struct{ A []string }{},
		struct{ A *string }{},
		struct{ A int64 }{},
		struct{ A uint64 }{},
		struct{ A [16]byte }{},
		struct{ A uuid.UUID }{},
		struct{ A time.Time }{},
		[]struct{ A string }{},
		map[string]string{},
		map[string][]byte{},
		true,
	} {
		s := shape(reflect.TypeOf(v))
		if other, ok := seen[s]; ok {
			t.Errorf("%T and %s have one shape", v, other)
		}
		seen[s] = reflect.TypeOf(v)
	}
}

//go:build unix

package consistency

import (
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// TestJudge holds the judge itself to a few short histories of one record: which it accepts, and which not.
func TestJudge(t *testing.T) {
	one, two, other := state{2, 1}, state{3, 2}, state{2, 3}
	ms := func(n int) instant { return instant(n) * instant(time.Millisecond) }
	made := func(s state, o outcome, call, done, binding int) *write {
		return &write{state: s, outcome: o, call: ms(call), done: ms(done), binding: ms(binding)}
	}
	got := func(s state, call, done int) read {
		at := interval{ms(call), ms(done)}
		return read{state: s, first: at, last: at}
	}
	first := state{version: 1}
	for name, test := range map[string]struct {
		writes []*write
		reads  []read
		want   porcupine.CheckResult
	}{
		"in order":                     {[]*write{made(one, applied, 10, 20, 20)}, []read{got(first, 0, 5), got(one, 21, 25)}, porcupine.Ok},
		"stale":                        {[]*write{made(one, applied, 10, 20, 20)}, []read{got(first, 21, 25)}, porcupine.Illegal},
		"from the future":              {[]*write{made(one, applied, 10, 20, 20)}, []read{got(one, 1, 5)}, porcupine.Illegal},
		"both, while it is written":    {[]*write{made(one, applied, 10, 20, 20)}, []read{got(one, 11, 13), got(first, 14, 16)}, porcupine.Ok},
		"both, before it binds":        {[]*write{made(one, applied, 10, 20, 1020)}, []read{got(one, 21, 22), got(first, 1019, 1025)}, porcupine.Ok},
		"old again, after it binds":    {[]*write{made(one, applied, 10, 20, 1020)}, []read{got(first, 1021, 1025)}, porcupine.Illegal},
		"never written":                {nil, []read{got(one, 1, 2)}, porcupine.Illegal},
		"rolled back":                  {[]*write{made(one, undone, 10, 20, 0)}, []read{got(one, 21, 22)}, porcupine.Illegal},
		"two on the same state":        {[]*write{made(one, applied, 10, 20, 20), made(other, applied, 11, 21, 21)}, nil, porcupine.Illegal},
		"one of two refused":           {[]*write{made(one, applied, 10, 20, 20), made(other, refused, 11, 21, 0)}, nil, porcupine.Ok},
		"refused without a cause":      {[]*write{made(other, refused, 11, 21, 0)}, nil, porcupine.Illegal},
		"unknown, and seen":            {[]*write{made(one, detected, 10, 20, 1020)}, []read{got(one, 30, 31)}, porcupine.Ok},
		"unknown, and never seen":      {[]*write{made(one, unknown, 10, 20, 0)}, []read{got(first, 5000, 5001)}, porcupine.Ok},
		"unknown, and built upon":      {[]*write{made(one, unknown, 10, 20, 0), made(two, applied, 30, 40, 40)}, []read{got(two, 41, 42)}, porcupine.Ok},
		"built upon nothing":           {[]*write{made(two, applied, 30, 40, 40)}, []read{got(two, 41, 42)}, porcupine.Illegal},
		"unknown, and gone after that": {[]*write{made(one, detected, 10, 20, 1020)}, []read{got(one, 30, 31), got(first, 2000, 2001)}, porcupine.Illegal},
	} {
		r := newRecord(name)
		for _, w := range test.writes {
			r.writes[w.write] = w
		}
		r.reads = test.reads
		if got := r.linearizable(); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

package rollout

import (
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// Spec is what the ladder must know of a module.
type Spec struct {
	Initial Setting  // where the table has none yet
	Methods []string // the reads that must have been compared before the module may advance; see MethodsOf
	// MismatchBudget is how many of 10,000 comparisons may differ, or cache hits be stale, before the module is moved back.
	MismatchBudget int
	Kinds          []string // of its cached entities (platform/cache)
}

// MethodsOf returns the names of an interface's methods.
func MethodsOf[Reader any]() []string {
	t := reflect.TypeFor[Reader]()
	names := make([]string, t.NumMethod())
	for i := range names {
		names[i] = t.Method(i).Name
	}
	return names
}

// Module is one module's place on the ladder. It is safe for concurrent use.
type Module struct {
	name     string
	spec     Spec
	salt     uint64
	counters *counters
	current  atomic.Pointer[state]

	compare *comparer // nil where nothing is compared
	sample  int       // of the answers in the stage repository, in basis points

	mu      sync.Mutex
	pending []Mismatch

	watch    watch                    // the registry's, under its lock, as is
	flagLost bool                     // the module's flag could not be read the last time
	unjudged atomic.Pointer[[]string] // what the guard cannot judge, and why
}

// state is what decisions are made from. It is replaced, never changed.
type state struct {
	Setting
	version         int64 // 0 before the table has been read
	outside, inside path
	shadow          bool
	base            tally // what had been counted when it came into force
}

// A decision says which path answers for a key, and whether the key is in the cohort of the stage.
type decision struct {
	path   path
	cohort bool
}

func newModule(name string, spec Spec) (*Module, error) {
	if !spec.Initial.valid() {
		return nil, fmt.Errorf("rollout: module %s: %q at %d basis points is no stage", name, spec.Initial.Stage, spec.Initial.Reach)
	}
	m := &Module{name: name, spec: spec, salt: xxhash.Sum64String(name), counters: newCounters(spec.Methods)}
	m.set(spec.Initial, 0)
	return m, nil
}

func (m *Module) set(s Setting, version int64) {
	next := &state{Setting: s, version: version, shadow: s.Stage == Shadow, base: m.counters.tally()}
	next.outside, next.inside = s.Stage.paths()
	m.current.Store(next)
}

// Setting returns the stage that this process is at.
func (m *Module) Setting() Setting { return m.current.Load().Setting }

// decide picks the path for a key. A key never flips between paths while the setting stays, nor when its reach grows.
func (m *Module) decide(key string) decision {
	s := m.current.Load()
	if s.Reach < Whole && bucket(m.salt, key) >= s.Reach {
		return decision{path: s.outside}
	}
	if s.shadow {
		return decision{path: s.outside, cohort: true}
	}
	return decision{path: s.inside, cohort: true}
}

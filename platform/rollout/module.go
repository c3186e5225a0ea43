package rollout

import (
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// Module is one module's place on the ladder. It is safe for concurrent use.
type Module struct {
	name    string
	salt    uint64
	current atomic.Pointer[state]
}

// state is what decisions are made from. It is replaced, never changed.
type state struct {
	Setting
	outside, inside path
	shadow          bool
}

// A decision says which path answers for a key, and whether the key is in the cohort of the stage.
type decision struct {
	path   path
	cohort bool
}

func newModule(name string, s Setting) *Module {
	m := &Module{name: name, salt: xxhash.Sum64String(name)}
	m.set(s)
	return m
}

func (m *Module) set(s Setting) {
	next := &state{Setting: s, shadow: s.Stage == Shadow}
	next.outside, next.inside = s.Stage.paths()
	m.current.Store(next)
}

// Setting returns the stage that this process is at.
func (m *Module) Setting() Setting { return m.current.Load().Setting }

// decide picks the path for a key. A key never flips between paths while the setting stays, nor when its reach grows.
func (m *Module) decide(key string) decision {
	s := m.current.Load()
	if bucket(m.salt, key) >= s.Reach {
		return decision{path: s.outside}
	}
	if s.shadow {
		return decision{path: s.outside, cohort: true}
	}
	return decision{path: s.inside, cohort: true}
}

//go:build unix

package consistency

import (
	"time"

	"github.com/anishathalye/porcupine"
)

// checkTimeout bounds the search for an order of one record's history.
const checkTimeout = 20 * time.Second

// model is a row in PostgreSQL: a write is legal only on the state before it, and a read returns the state.
var model = porcupine.Model{
	Init: func() any { return state{version: 1} },
	Step: func(current, input, output any) (bool, any) {
		row, _ := current.(state)
		switch op := input.(type) {
		case lookup:
			return output == row, row
		case attempt:
			if op.outcome == refused {
				return row.version != op.version-1, row
			}
			return row.version == op.version-1, op.state
		}
		return false, row
	},
}

type (
	lookup  struct{}
	attempt struct {
		state
		outcome outcome
	}
)

// linearizable says whether there is an order of a record's history in which every operation makes sense.
//
// While a write is under way, one instance may already answer with the new state and another still with the old one, so
// a read that began then may be moved to where the write began. Whatever is acknowledged, or otherwise binding, before a
// read begins stays before it.
func (r *record) linearizable() porcupine.CheckResult {
	writes := r.committed()
	var history []porcupine.Operation
	for i, w := range writes {
		history = append(history, porcupine.Operation{ClientId: i, Input: attempt{w.state, w.outcome}, Call: int64(w.call), Return: int64(w.done)})
	}
	for _, run := range r.reads {
		for _, at := range []interval{run.first, run.last} {
			call := at.call
			for _, w := range writes {
				if w.call < call && w.outcome != refused && w.binding > at.call {
					call = w.call - 1
				}
			}
			history = append(history, porcupine.Operation{Input: lookup{}, Output: run.state, Call: int64(call), Return: int64(at.done)})
		}
	}
	return porcupine.CheckOperationsTimeout(model, history, checkTimeout)
}

// committed returns the writes that the history has to explain: what was acknowledged, refused, or has left a trace
// although nobody knows its outcome. Without a trace it may be left out. An unknown write may have been committed at any
// time, so it is given until the end.
func (r *record) committed() []*write {
	known := map[int64]bool{1: true}
	for _, w := range r.writes {
		if w.outcome == applied || w.outcome == detected {
			known[w.version] = true
		}
	}
	var last int64
	for version := range known {
		last = max(last, version)
	}
	var all []*write
	for _, w := range r.writes {
		if w.write == 0 || w.outcome == undone {
			continue
		}
		if w.outcome == unknown { // one of them has filled a gap between known versions
			if w.version == 0 || w.version > last || known[w.version] {
				continue
			}
			known[w.version] = true
		}
		if w.outcome == unknown || w.outcome == detected {
			w.done = instant(never)
		}
		if w.binding == 0 {
			w.binding = instant(never)
		}
		all = append(all, w)
	}
	return all
}

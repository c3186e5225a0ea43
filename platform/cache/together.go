package cache

import (
	"context"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"
)

// leadsKept is how many entities an Entity remembers what they lead to.
const leadsKept = 16384

// Leads declares that whoever reads an entity of this kind goes on to read the one with the key that to returns (see
// Key), as a session leads to its user. In a context of Together both are then asked for in one round trip to Redis,
// once this process has seen where the first one leads. It is a hint: where it turns out to be wrong, or Redis has only
// one of them, the other is read as ever.
func (e *Entity[T]) Leads(to func(T) (key string)) *Entity[T] {
	e.leads = to
	e.led, _ = lru.New[ID, name](leadsKept) // fails below 1 only
	return e
}

// note remembers where an entity leads.
func (e *Entity[T]) note(id ID, value T) {
	if e.leads != nil {
		e.led.Add(id, parseName(e.leads(value)))
	}
}

// next returns what is worth asking for beside an entity.
func (e *Entity[T]) next(id ID) (n name) {
	if e.leads != nil {
		n, _ = e.led.Get(id)
	}
	return n
}

// Together returns a context for reads that lead to one another. What it is given to must begin and end with them: the
// second is answered as of the time of the first, if nothing that this process has heard of has changed it since.
func Together(ctx context.Context) context.Context { return &together{Context: ctx} }

// together is a context that takes the answer for the second entity from one read to the next.
type together struct {
	context.Context

	ahead atomic.Pointer[readAhead]
}

type readAhead struct {
	name   name
	gen    uint64 // from before it was asked for
	answer answer
}

type togetherKey struct{}

// Value implements context.Context.
func (t *together) Value(key any) any {
	if _, ok := key.(togetherKey); ok {
		return t
	}
	return t.Context.Value(key)
}

// lookup answers from what was read ahead, or asks Redis, and reads ahead itself.
func (r *read) lookup(ctx context.Context, b *belief) answer {
	t, _ := ctx.Value(togetherKey{}).(*together)
	if t == nil {
		first, _ := r.c.shared.read(ctx, r.name, b, name{})
		return first
	}
	if a := t.ahead.Swap(nil); a != nil && a.name == r.name && a.gen == r.gen {
		return a.answer
	}
	var nextGen uint64
	if r.next.kind != "" {
		nextGen = r.c.local.generation(r.next)
	}
	first, second := r.c.shared.read(ctx, r.name, b, r.next)
	if second.outcome == outcomeHit {
		t.ahead.Store(&readAhead{r.next, nextGen, second})
	}
	return first
}

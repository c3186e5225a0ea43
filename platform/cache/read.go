package cache

import (
	"context"
	"fmt"
	"hash/fnv"
	"reflect"
	"sync"
	"time"
)

// How often, and how long apart, a reader asks again while another one fills the key that it wants.
const (
	busyRetries = 3
	busyPause   = 3 * time.Millisecond
)

type readKey struct{}

// A read is one reader's business with one key in Redis. It is used by one goroutine.
type read struct {
	c     *Cache
	name  name
	gen   uint64 // from before the read
	next  name   // what is worth reading ahead
	shape string // of the value wanted; one stored in another shape does not count
	stats *kindMetrics

	busy  bool      // when last asked, another reader was filling the key
	hit   bool      // by Redis
	born  time.Time // when a hit was read from PostgreSQL
	claim claim
}

// ask asks Redis once. It reports false where there is nothing to be believed; then the claim may allow a fill.
func (r *read) ask(ctx context.Context) (body string, missing, ok bool) {
	r.busy = false
	g := r.c.group(r.name)
	if r.c.shared.breaker(g.index).open.Load() {
		r.stats.bypassBreaker.Inc()
		return "", false, false
	}
	b := g.believes(clock())
	if b == nil {
		r.stats.bypassStale.Inc()
		return "", false, false
	}
	a := r.lookup(ctx, b)
	switch a.outcome {
	case outcomeHit:
		return r.accept(a.found)
	case outcomeBusy:
		r.busy = true
	case outcomeStale:
		r.stats.bypassStale.Inc()
	case outcomeDown:
		r.stats.bypassDown.Inc()
	case outcomeLeased:
		r.claim = a.claim
	case outcomeNone: // neither to be believed nor to be filled
	}
	return "", false, false
}

// askAgain asks some more times if another reader was filling the key.
func (r *read) askAgain(ctx context.Context) (body string, missing, ok bool) {
	for try := 0; r.busy; try++ {
		if try == busyRetries {
			r.busy = false
			r.stats.bypassBusy.Inc()
			break
		}
		time.Sleep(busyPause)
		if body, missing, ok = r.ask(ctx); ok {
			return body, missing, true
		}
	}
	return "", false, false
}

func (r *read) accept(f found) (body string, missing, ok bool) {
	if !f.missing {
		if len(f.body) < len(r.shape) || f.body[:len(r.shape)] != r.shape {
			return "", false, false // of another version of the program
		}
		f.body = f.body[len(r.shape):]
	}
	r.hit, r.born = true, f.born
	r.stats.hitRedis.Inc()
	return f.body, f.missing, true
}

// fill stores what was read from PostgreSQL, if this read was granted that. The reader does not wait for it.
func (r *read) fill(ctx context.Context, value any, missing bool) {
	if r.claim.lease == "" {
		return
	}
	var body []byte
	if !missing {
		var err error
		if body, err = pack([]byte(r.shape), reflect.Indirect(reflect.ValueOf(value))); err != nil {
			r.release(ctx) // not cacheable
			return
		}
	}
	if !r.c.shared.fillSoon(fill{
		context.WithoutCancel(ctx), r.claim, stored(r.claim.epoch, body, missing), r.c.lifetime(missing), r.stats,
	}) {
		r.release(ctx)
	}
	r.claim.lease = ""
}

// release gives up what fill would have needed, so that the next reader need not wait for its end.
func (r *read) release(ctx context.Context) {
	if r.claim.lease != "" {
		r.c.shared.release(context.WithoutCancel(ctx), r.claim)
		r.claim.lease = ""
	}
}

// shape identifies a type by its members' names, types and tags, so that a program never decodes what another version
// encoded.
func shape(t reflect.Type) string {
	if known, ok := shapes.Load(t); ok {
		s, _ := known.(string) // nothing else is stored
		return s
	}
	h := fnv.New32a()
	writeShape(h, t, 10)
	s := fmt.Sprintf("%08x", h.Sum32())
	shapes.Store(t, s)
	return s
}

var shapes sync.Map // reflect.Type -> string

func writeShape(w interface{ Write([]byte) (int, error) }, t reflect.Type, depth int) {
	_, _ = fmt.Fprintf(w, "%s %s;", t, t.Kind())
	if depth == 0 {
		return
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		writeShape(w, t.Elem(), depth-1)
	case reflect.Map:
		writeShape(w, t.Key(), depth-1)
		writeShape(w, t.Elem(), depth-1)
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			_, _ = fmt.Fprintf(w, "%s %s ", f.Name, f.Tag)
			writeShape(w, f.Type, depth-1)
		}
	default: // its name says it all
	}
}

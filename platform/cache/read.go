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
	shape string // of the value wanted; one stored in another shape does not count
	stats *kindMetrics

	used  bool      // one query has been answered or asked for
	hit   bool      // by Redis
	born  time.Time // when a hit was read from PostgreSQL
	claim claim
}

// lookup asks Redis once. It reports false where there is nothing to be believed; then the claim may allow a fill.
func (r *read) lookup(ctx context.Context) (body string, missing, ok bool) {
	r.used = true
	s := r.c.shared
	if s == nil {
		return "", false, false
	}
	g := r.c.group(r.name)
	if s.breaker(g.index).open.Load() {
		r.stats.bypassBreaker.Inc()
		return "", false, false
	}
	epoch := g.believes(clock())
	if epoch == "" {
		r.stats.bypassStale.Inc()
		return "", false, false
	}
	for try := 0; ; try++ {
		found, claim, got := s.read(ctx, r.name, epoch)
		switch got {
		case outcomeHit:
			if !found.missing {
				if len(found.body) < len(r.shape) || found.body[:len(r.shape)] != r.shape {
					return "", false, false // of another version of the program
				}
				found.body = found.body[len(r.shape):]
			}
			r.hit, r.born = true, found.born
			r.stats.hitRedis.Inc()
			return found.body, found.missing, true
		case outcomeBusy:
			if try < busyRetries {
				time.Sleep(busyPause)
				continue
			}
			r.stats.bypassBusy.Inc()
		case outcomeStale:
			r.stats.bypassStale.Inc()
		case outcomeDown:
			r.stats.bypassDown.Inc()
		case outcomeLeased:
			r.claim = claim
		}
		return "", false, false
	}
}

// fill stores what was read from PostgreSQL, if this read was granted that. The reader does not wait for it.
func (r *read) fill(ctx context.Context, body string, missing bool) {
	if r.claim.lease == "" {
		return
	}
	if !missing {
		body = r.shape + body
	}
	claim := r.claim
	r.claim.lease = ""
	go func() {
		faults.at("before fill")
		done, err := r.c.shared.fill(context.WithoutCancel(ctx), claim, body, missing, r.c.lifetime(missing))
		if err == nil && !done {
			r.stats.rejectedRedis.Inc()
		}
	}()
}

// release gives up what fill would have needed.
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
	writeShape(h, t, 6)
	s := fmt.Sprintf("%08x", h.Sum32())
	shapes.Store(t, s)
	return s
}

var shapes sync.Map // reflect.Type -> string

func writeShape(w interface{ Write([]byte) (int, error) }, t reflect.Type, depth int) {
	_, _ = fmt.Fprintf(w, "%s;", t)
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

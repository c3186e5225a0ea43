package sessions

import (
	"testing"

	"github.com/strata-accounts/strata/platform/ids"
)

// BenchmarkByToken is what finding a session costs: on the rung that asks PostgreSQL, and where the process remembers it.
func BenchmarkByToken(b *testing.B) {
	d := openDB(b)
	cached := newInstance(b, d)
	s := mustCreate(b, cached, ids.New())
	cached.warm(b, s)
	for name, r := range map[string]Repository{"postgres": NewPostgresRepository(d), "process": cached} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.ByToken(b.Context(), s.TokenHash); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkNote is what noting the use of a session costs its request.
func BenchmarkNote(b *testing.B) {
	l := newSeenLog(nil, SeenPolicy{Idle: day, Interval: day})
	id := ids.New()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.note(id, false)
		}
	})
}

package cache

import (
	"testing"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// TestLookup asks Redis for a value while the server is not as it was when the belief in it came about.
func TestLookup(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		commands [][]any // what happens to the server; nil in place of the key
		want     outcome
	}{
		"nothing happens": {nil, outcomeHit},
		"it was demoted and promoted": {
			[][]any{{"replicaof", "127.0.0.1", "1"}, {"replicaof", "no", "one"}}, outcomeStale,
		},
		"it has been demoted": {[][]any{{"replicaof", "127.0.0.1", "1"}}, outcomeStale},
		"the value is of another epoch": {
			[][]any{{"setrange", nil, 1, "another epoch..."}}, outcomeLeased,
		},
		"another reader fills":                {[][]any{{"setrange", nil, 0, "L"}}, outcomeBusy},
		"the value is gone":                   {[][]any{{"del", nil}}, outcomeLeased},
		"it is full and will not evict":       {[][]any{{"config", "set", "maxmemory", 1}}, outcomeHit},
		"it is full, and the value gone":      {[][]any{{"del", nil}, {"config", "set", "maxmemory", 1}}, outcomeDown},
		"the value is gone and the meta, too": {[][]any{{"flushall"}}, outcomeLeased}, // of an epoch that nobody will believe
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSetup(t, dbtest.Redis(t, "--maxmemory-policy", "noeviction").URL)
			s.config.Entries, s.config.RedisTimeout = 0, controlTimeout
			s.exec(t, `INSERT INTO things (id) VALUES ('a'), ('b')`)
			i := s.start(t)
			i.warm(t, "a")
			i.warm(t, "b")
			belief, key := i.belief(t), i.shared.entityKey(0, thingName("a"))
			for _, args := range c.commands {
				for n := range args {
					if args[n] == nil {
						args[n] = key
					}
				}
				if err := i.shared.control.Do(t.Context(), args...).Err(); err != nil {
					t.Fatal(err)
				}
			}
			got, beside := i.shared.read(t.Context(), thingName("a"), belief, thingName("b"))
			if got.outcome != c.want {
				t.Errorf("outcome %d, want %d", got.outcome, c.want)
			}
			if got.outcome != outcomeHit && beside.outcome == outcomeHit && c.want == outcomeStale {
				t.Error("what was read beside it is believed")
			}
		})
	}
}

// belief waits for a live marker.
func (i *instance) belief(t *testing.T) (b *belief) {
	t.Helper()
	until(t, "a live marker", func() bool {
		b = i.groups[0].believes(clock())
		return b != nil
	})
	return b
}

func thingName(id string) name { return name{"thing", Text(id)} }

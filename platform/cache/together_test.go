package cache

import (
	"context"
	"testing"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// TestTogether reads b after a, without the in-process tier, so that each read would ask Redis.
func TestTogether(t *testing.T) {
	t.Parallel()
	server := dbtest.Redis(t)
	s := newSetup(t, server.URL)
	s.config.Entries, s.config.RedisTimeout = 0, controlTimeout
	s.exec(t, `INSERT INTO things (id, n) VALUES ('a', 1), ('b', 2), ('c', 3)`)
	i := s.start(t)
	leads := "b"
	i.things.Leads(func(thing) string { return i.things.Key(Text(leads)) })
	i.warm(t, "a")
	i.warm(t, "b")
	i.warm(t, "c")
	get := func(ctx context.Context, id string, n int64) {
		t.Helper()
		if got, err := i.get(ctx, id); err != nil || got.N != n {
			t.Fatalf("get %s: %+v, %v; want n = %d", id, got, err, n)
		}
	}

	ctx := Together(t.Context())
	get(ctx, "a", 1)
	get(ctx, "c", 3) // another than it leads to
	get(ctx, "b", 2)

	ctx = Together(t.Context())
	get(ctx, "a", 1)
	if err := i.write(t.Context(), "b", `UPDATE things SET n = 20 WHERE id = $1`); err != nil {
		t.Fatal(err)
	}
	get(ctx, "b", 20)

	leads = "c"
	get(t.Context(), "a", 1) // learns it
	leads = "b"              // and that is wrong now
	get(Together(t.Context()), "a", 1)

	i.warm(t, "b")
	ctx = Together(t.Context())
	get(ctx, "a", 1)
	server.Pause()
	defer server.Resume()
	hits := i.redis()
	get(ctx, "b", 20)
	if i.redis() != hits+1 {
		t.Error("b was not read with a")
	}
}

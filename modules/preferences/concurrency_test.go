package preferences

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/rollout"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

// Values are written while the schema changes back and forth: whatever is committed satisfies the committed schema, at
// every moment that a third party can see.
func TestSchemaChangeAgainstWrites(t *testing.T) {
	for _, stage := range []rollout.Stage{rollout.Direct, rollout.Repository} {
		t.Run(string(stage), func(t *testing.T) {
			t.Parallel()
			testSchemaChangeAgainstWrites(t, newWorld(t, stage))
		})
	}
}

func testSchemaChangeAgainstWrites(t *testing.T, w *world) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w.define("n", `{"type":"integer"}`, `0`)
	users := []uuid.UUID{w.person(), w.person(), w.person(), w.person()}
	const rounds = 60
	var accepted, refused, writes atomic.Int64
	var wg sync.WaitGroup
	for i, user := range users {
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			for range rounds {
				err := w.patch(user, fmt.Sprintf(`{"n":%d}`, []int{-1, 1}[rnd.IntN(2)]))
				if err != nil && !errors.Is(err, errs.ErrInvalid) {
					t.Errorf("write: %v", err)
				} else if err == nil {
					writes.Add(1)
				}
				if err := w.patch(user, `{"n":null}`); err != nil {
					t.Errorf("reset: %v", err)
				}
			}
		})
	}
	wg.Go(func() {
		for round := range rounds {
			schema := []string{`{"type":"integer","minimum":0}`, `{"type":"integer"}`, `{"type":"integer","maximum":0}`, `{"type":"integer"}`}[round%4]
			_, _, err := w.put("n", schema, `0`)
			switch {
			case err == nil:
				accepted.Add(1)
			case errors.Is(err, ErrBreaks):
				refused.Add(1)
			default:
				t.Errorf("schema change: %v", err)
			}
			checkAllStored(t, w)
		}
	})
	wg.Wait()
	checkAllStored(t, w)
	t.Logf("%d writes, %d schema changes, %d refused", writes.Load(), accepted.Load(), refused.Load())
	if writes.Load() == 0 || accepted.Load() < 2 {
		t.Error("nothing raced")
	}
}

// checkAllStored holds all stored values against their schemas, in one snapshot.
func checkAllStored(t *testing.T, w *world) {
	rows, err := w.db.SQL().QueryContext(t.Context(),
		`SELECT d.schema::text, v.value::text FROM user_preference_values v JOIN preference_definitions d USING (key)`)
	if err != nil {
		t.Error(err)
		return
	}
	defer rows.Close()
	for rows.Next() {
		var schema, value string
		if err := rows.Scan(&schema, &value); err != nil {
			t.Error(err)
			return
		}
		if bad := mustCompile(t, schema).violations("", webtest.Decode(t, value)); len(bad) > 0 {
			t.Errorf("%s is stored under %s", value, schema)
		}
	}
	if err := rows.Err(); err != nil {
		t.Error(err)
	}
}

// An erasure that comes between a write's check for the user and its commit waits for it, and then takes all.
func TestEraseAgainstWrites(t *testing.T) {
	w := newWorld(t, rollout.Repository)
	w.define("n", `{}`, `0`)
	user := w.person()
	erased := make(chan error, 1)
	_, err := w.Service.Put(t.Context(), user, "n", json.RawMessage(`1`), func(string) error {
		go func() {
			erased <- w.db.InTx(t.Context(), func(ctx context.Context) error {
				if _, err := w.db.Querier(ctx).ExecContext(ctx, `DELETE FROM people WHERE id = $1`, user); err != nil {
					return err
				}
				return w.Service.Erase(ctx, user)
			})
		}()
		waitForLock(t, w.db)
		return nil
	})
	wantError(t, "write", err, nil)
	wantError(t, "erasure", <-erased, nil)
	if v, _ := w.Service.repo.Values(t.Context(), user); v.Version != 0 || len(v.Set) != 0 {
		t.Errorf("left behind: %+v", v)
	}
	wantError(t, "write after erasure", w.patch(user, `{"n":1}`), errNoUser)
}

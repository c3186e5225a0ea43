package cache

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// TestPlugin runs without the in-process tier, so that every read passes through GORM.
func TestPlugin(t *testing.T) {
	t.Parallel()
	s := newSetup(t, dbtest.Redis(t).URL)
	s.config.Entries, s.config.RedisTimeout = 0, controlTimeout // a busy machine must not lose what is stored here
	s.config.CheckEvery = 0                                     // a check would run the loads below once more
	s.exec(t, `INSERT INTO things (id, n) VALUES ('a b', 1), ('a', 2), ('c', 3), ('d', 4), ('e', 5), ('f', 6)`)
	i := s.start(t)
	i.warm(t, "a b")
	i.warm(t, "a")
	until(t, "all has been relayed, and takes no more leases away", func() (empty bool) {
		row := s.db.SQL().QueryRowContext(t.Context(), `SELECT NOT EXISTS (SELECT FROM cache_outbox)`)
		return row.Scan(&empty) == nil && empty
	})

	get := func(ctx context.Context, id string, load func(tx *gorm.DB) (thing, error)) (thing, error) {
		return i.entity(s.options, func(ctx context.Context, _ ID) (thing, error) { return load(s.db.Gorm(ctx)) }).Get(ctx, Text(id))
	}
	t.Run("keys are the entity's", func(t *testing.T) {
		wantN(t, i, "a b", 1)
		wantN(t, i, "a", 2)
	})
	t.Run("only the first query of a load", func(t *testing.T) {
		two := func(tx *gorm.DB) (first thing, err error) {
			var second thing
			err = errors.Join(tx.Take(&first, "id = ?", "d").Error, tx.Take(&second, "id = ?", "c").Error)
			if second.N != 3 {
				t.Errorf("the second query got %+v", second)
			}
			return first, err
		}
		until(t, "a hit", func() bool {
			hits := i.redis()
			got, err := get(t.Context(), "d", two)
			if err != nil || got.N != 4 {
				t.Fatal(got, err)
			}
			return i.redis() > hits
		})
	})
	t.Run("what another reader fills meanwhile", func(t *testing.T) {
		filling, _ := i.shared.read(t.Context(), name{"thing", Text("e")}, i.belief(t), name{})
		if filling.outcome != outcomeLeased {
			t.Fatalf("outcome %d", filling.outcome)
		}
		fill := func(body []byte, missing bool) {
			f := fill{claim: filling.claim, value: stored(filling.claim.epoch, body, missing), ttl: time.Minute}
			if done, err := i.shared.fill(t.Context(), 0, []fill{f}); part[int64](done, 0) != 1 || err != nil {
				t.Fatal(done, err)
			}
		}
		got, err := get(t.Context(), "e", func(tx *gorm.DB) (got thing, err error) {
			packed, err := pack([]byte(i.things.shape), reflect.ValueOf(thing{ID: "e", N: 77}))
			if err != nil {
				return got, err
			}
			fill(packed, false)
			res := tx.Take(&got, "id = ?", "e")
			if res.RowsAffected != 1 {
				t.Errorf("%d rows", res.RowsAffected)
			}
			return got, res.Error
		})
		if err != nil || got.N != 77 {
			t.Fatal(got, err)
		}
		i.shared.client.Del(t.Context(), filling.claim.key)
		filling, _ = i.shared.read(t.Context(), name{"thing", Text("e")}, i.belief(t), name{})
		_, err = get(t.Context(), "e", func(tx *gorm.DB) (got thing, err error) {
			fill(nil, true)
			err = tx.Take(&got, "id = ?", "e").Error
			if !errors.Is(err, gorm.ErrRecordNotFound) {
				t.Errorf("GORM says %v", err)
			}
			return got, errNoThing
		})
		if !errors.Is(err, errNoThing) {
			t.Fatal(err)
		}
	})
	t.Run("a query without a key passes by", func(t *testing.T) {
		reads := i.redis() + i.misses()
		var got thing
		if err := s.db.Gorm(t.Context()).Take(&got, "id = ?", "a").Error; err != nil || got.N != 2 || i.redis()+i.misses() != reads {
			t.Fatal(got, err)
		}
	})
	t.Run("a query for another row passes by, and frees the key", func(t *testing.T) {
		for range 2 {
			got, err := get(t.Context(), "f", func(tx *gorm.DB) (thing, error) {
				var wider struct {
					ID string
					N  int
				}
				err := tx.Table("things").Take(&wider, "id = ?", "f").Error
				return thing{ID: wider.ID, N: int64(wider.N)}, err
			})
			if err != nil || got.N != 6 {
				t.Fatal(got, err)
			}
			if stored := i.shared.client.Exists(t.Context(), i.shared.entityKey(0, name{"thing", Text("f")})).Val(); stored != 0 {
				t.Fatal("something is stored")
			}
		}
	})
	t.Run("a transaction locks and sees its own state", func(t *testing.T) {
		err := s.db.InTx(t.Context(), func(ctx context.Context) error {
			s.exec(t, `UPDATE things SET n = 20 WHERE id = 'a'`) // by another connection, not yet relayed perhaps
			got, err := get(ctx, "a", func(tx *gorm.DB) (got thing, err error) {
				return got, tx.Clauses(clause.Locking{Strength: "UPDATE"}).Take(&got, "id = ?", "a").Error
			})
			if err == nil && got.N == 2 {
				t.Error("answered from the cache")
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a broken value is a miss", func(t *testing.T) {
		i.warm(t, "c")
		key := i.shared.entityKey(0, name{"thing", Text("c")})
		value := i.shared.client.Get(t.Context(), key).Val()
		i.shared.client.Set(t.Context(), key, value[:valueHeader+8]+"{", 0)
		wantN(t, i, "c", 3)
	})
}

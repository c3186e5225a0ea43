package cache

import (
	"context"
	"errors"
	"testing"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// TestPlugin runs without the in-process tier, so that every read passes through GORM.
func TestPlugin(t *testing.T) {
	t.Parallel()
	s := newSetup(t, dbtest.Redis(t).URL)
	s.config.Entries = 0
	s.exec(t, `INSERT INTO things (id, n) VALUES ('a b', 1), ('a', 2), ('c', 3)`)
	i := s.start(t)
	i.warm(t, "a b")
	i.warm(t, "a")

	get := func(id string, load func(tx *gorm.DB) (thing, error)) (thing, error) {
		return i.things.Get(t.Context(), id, func(ctx context.Context) (thing, error) { return load(s.db.Gorm(ctx)) })
	}
	t.Run("keys are the entity's", func(t *testing.T) {
		wantN(t, i, "a b", 1)
		wantN(t, i, "a", 2)
	})
	t.Run("only the first query of a load", func(t *testing.T) {
		got, err := get("a", func(tx *gorm.DB) (first thing, err error) {
			var second thing
			err = errors.Join(tx.Take(&first, "id = ?", "a").Error, tx.Take(&second, "id = ?", "c").Error)
			if second.N != 3 {
				t.Errorf("the second query got %+v", second)
			}
			return first, err
		})
		if err != nil || got.N != 2 {
			t.Fatal(got, err)
		}
	})
	t.Run("a query without a key passes by", func(t *testing.T) {
		reads := i.redis() + i.misses()
		var got thing
		if err := s.db.Gorm(t.Context()).Take(&got, "id = ?", "a").Error; err != nil || got.N != 2 || i.redis()+i.misses() != reads {
			t.Fatal(got, err)
		}
	})
	t.Run("an absence is GORM's own", func(t *testing.T) {
		i.warm(t, "none")
		_, err := get("none", func(tx *gorm.DB) (got thing, err error) {
			err = tx.Take(&got, "id = ?", "none").Error
			if !errors.Is(err, gorm.ErrRecordNotFound) {
				t.Errorf("GORM says %v", err)
			}
			return got, errNoThing
		})
		if !errors.Is(err, errNoThing) {
			t.Fatal(err)
		}
	})
	t.Run("a value of another shape is a miss", func(t *testing.T) {
		i.warm(t, "c")
		got, err := get("c", func(tx *gorm.DB) (thing, error) {
			var wider struct {
				ID string
				N  int
			}
			err := tx.Table("things").Take(&wider, "id = ?", "c").Error
			return thing{ID: wider.ID, N: int64(wider.N)}, err
		})
		if err != nil || got.N != 3 {
			t.Fatal(got, err)
		}
	})
	t.Run("a transaction locks and sees its own state", func(t *testing.T) {
		err := s.db.InTx(t.Context(), func(ctx context.Context) error {
			s.exec(t, `UPDATE things SET n = 20 WHERE id = 'a'`) // by another connection, not yet relayed perhaps
			got, err := i.things.Get(ctx, "a", func(ctx context.Context) (got thing, err error) {
				return got, s.db.Gorm(ctx).Clauses(clause.Locking{Strength: "UPDATE"}).Take(&got, "id = ?", "a").Error
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
		key := i.shared.entityKey(0, name{"thing", "c"})
		value := i.shared.client.Get(t.Context(), key).Val()
		i.shared.client.Set(t.Context(), key, value[:valueHeader+8]+"{", 0)
		wantN(t, i, "c", 3)
	})
}

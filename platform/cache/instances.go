package cache

import (
	"context"
	"time"

	"github.com/strata-accounts/strata/platform/db"
)

const (
	beatEvery = time.Second
	aliveFor  = 5 * time.Second
)

// Live returns how many instances use this database: those that have told so lately.
func Live(ctx context.Context, d *db.DB) (n int, err error) {
	err = d.Querier(ctx).QueryRowContext(ctx,
		`SELECT count(*) FROM cache_instance WHERE seen_at > now() - $1::float8 * interval '1 second'`, aliveFor.Seconds()).Scan(&n)
	return n, db.Translate(err, nil)
}

// beat tells the other instances that this one is up, and learns how many they are. Without Redis several cannot share a
// cache: each then goes without, and says so.
func (r *relay) beat(ctx context.Context) error {
	var others, sharing int
	err := r.conn.QueryRowContext(ctx, `WITH me AS (
			INSERT INTO cache_instance (id, shared, seen_at) VALUES ($1, $2, now())
			ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at
		), gone AS (
			DELETE FROM cache_instance WHERE seen_at < now() - 4 * $3::float8 * interval '1 second'
		)
		SELECT count(*), count(*) FILTER (WHERE shared) FROM cache_instance WHERE id <> $1 AND seen_at > now() - $3::float8 * interval '1 second'`,
		r.c.id, r.c.shared != nil, aliveFor.Seconds()).Scan(&others, &sharing)
	if err != nil {
		return err
	}
	if r.c.shared == nil && (others > 0) != (r.others > 0) {
		if others > 0 {
			r.c.log.WarnContext(ctx, "cache: another instance is up and there is no Redis to share: reads go to PostgreSQL",
				"others", others)
		} else {
			r.c.log.InfoContext(ctx, "cache: the other instances have gone")
		}
	}
	r.others, r.sharing = others, sharing
	r.c.metrics.instances.Set(float64(others + 1))
	return nil
}

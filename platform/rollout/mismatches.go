package rollout

import (
	"context"
	"encoding/json"

	"github.com/strata-accounts/strata/platform/db"
)

const keptMismatches = 200 // of a module

// publish stores the mismatches that this process has found since the last poll, and forgets the oldest.
func (r *Registry) publish(ctx context.Context) error {
	for _, m := range r.modules {
		reports := m.reports()
		if len(reports) == 0 {
			continue
		}
		err := r.db.InTx(ctx, func(ctx context.Context) error { return r.store(ctx, m.name, reports) })
		if err != nil {
			return err
		}
		m.published(len(reports))
	}
	return nil
}

func (r *Registry) store(ctx context.Context, module string, reports []Mismatch) error {
	q := r.db.Querier(ctx)
	for _, report := range reports {
		data, err := json.Marshal(report)
		if err != nil {
			return err
		}
		if _, err := q.ExecContext(ctx, `INSERT INTO rollout_mismatches (module, version, method, key_hash, report, seen_at)
			VALUES ($1, $2, $3, $4, $5, clock_timestamp())`,
			module, report.Version, report.Method, report.KeyHash, string(data)); err != nil {
			return db.Translate(err, nil)
		}
	}
	_, err := q.ExecContext(ctx, `DELETE FROM rollout_mismatches WHERE module = $1 AND id <= (
		SELECT id FROM rollout_mismatches WHERE module = $1 ORDER BY id DESC OFFSET $2 LIMIT 1)`, module, keptMismatches)
	return db.Translate(err, nil)
}

// Mismatches returns the reports that are kept of a module, the newest first. Of many that come at once only some are.
//
// Errors: ErrNotFound, those of the database.
func (r *Registry) Mismatches(ctx context.Context, module string, limit int) ([]Mismatch, error) {
	if r.module(module) == nil {
		return nil, ErrNotFound
	}
	rows, err := r.db.Querier(ctx).QueryContext(ctx, `SELECT method, key_hash, version, report, seen_at
		FROM rollout_mismatches WHERE module = $1 ORDER BY id DESC LIMIT $2`, module, limit)
	if err != nil {
		return nil, db.Translate(err, nil)
	}
	defer rows.Close()
	var list []Mismatch
	for rows.Next() {
		var m Mismatch
		var data []byte
		if err := rows.Scan(&m.Method, &m.KeyHash, &m.Version, &data, &m.SeenAt); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, &m); err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, db.Translate(rows.Err(), nil)
}

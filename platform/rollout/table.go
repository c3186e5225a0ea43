package rollout

import (
	"context"
	"encoding/json"
	"time"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/errs"
)

// Errors of moving a module.
var (
	ErrNotFound         = errs.New(errs.NotFound, "module_not_found", "There is no such module.")
	ErrVersionChanged   = errs.New(errs.Precondition, "precondition_failed", "The module has been moved meanwhile. Read it again.")
	ErrStageNotAdjacent = errs.New(errs.Conflict, "stage_not_adjacent",
		"A module moves one stage at a time: direct, shadow, repository, cached.")
	ErrStageNotWhole = errs.New(errs.Conflict, "stage_not_whole",
		"The cache is read through the repository, which must answer for 100 percent of the keys first.")
	ErrInstancesNotCaughtUp = errs.New(errs.Conflict, "instances_not_caught_up",
		"Not every live instance has acknowledged the move before. Try again in two seconds.").After(2 * time.Second)
)

const (
	aliveFor = 5 * time.Second // since the last heartbeat
	keptFor  = time.Hour       // what an instance that has gone has counted
)

// A Change moves a module.
type Change struct {
	Module  string
	To      Setting
	Version int64 // that the module must be at; 0 for any
	Actor   string
	Reason  string
}

// A Record is a move that was made.
type Record struct {
	Setting
	Version   int64
	Actor     string
	Reason    string
	ChangedAt time.Time
}

// stageRow is a row of rollout_stages.
type stageRow struct {
	module string
	Setting
	version   int64
	wanted    string // by the flag, the last time it changed
	held      bool   // by the guard
	changedAt time.Time
	known     baseline
	now       time.Time // by the database's clock
}

const stageColumns = `module, stage, reach, version, wanted, held, changed_at, baseline, clock_timestamp()`

func (s *stageRow) fields() []any {
	return []any{&s.module, &s.Stage, &s.Reach, &s.version, &s.wanted, &s.held, &s.changedAt, &s.known, &s.now}
}

// Change moves a module. It is in force in this process when it returns, and on the others within two polls. A move to
// where the module is changes nothing. Moves back are always possible; others wait for the instances.
//
// Errors: ErrNotFound, ErrVersionChanged, ErrStageNotAdjacent, ErrStageNotWhole, ErrInstancesNotCaughtUp,
// ErrManagedElsewhere, those of the database.
func (r *Registry) Change(ctx context.Context, c Change) error {
	if r.flags != nil {
		return ErrManagedElsewhere
	}
	if err := r.change(ctx, c); err != nil {
		return err
	}
	// The move has been made, whoever still waits for the answer; if it cannot be taken over now, the next poll will.
	if err := r.poll(context.WithoutCancel(ctx)); err != nil {
		r.log.WarnContext(ctx, "rollout: a move could not be taken over at once", "module", c.Module, "error", err)
	}
	return nil
}

// change is Change up to the table.
func (r *Registry) change(ctx context.Context, c Change) error {
	if r.module(c.Module) == nil {
		return ErrNotFound
	}
	return r.db.InTx(ctx, func(ctx context.Context) error {
		var row stageRow
		if err := r.db.Querier(ctx).QueryRowContext(ctx,
			`SELECT `+stageColumns+` FROM rollout_stages WHERE module = $1 FOR UPDATE`, c.Module).Scan(row.fields()...); err != nil {
			return db.Translate(err, nil)
		}
		if c.Version != 0 && c.Version != row.version {
			return ErrVersionChanged
		}
		if c.To == row.Setting {
			return nil
		}
		if err := r.permit(ctx, row, c.To); err != nil {
			return err
		}
		return r.move(ctx, row, c)
	})
}

// permit checks what a move depends on besides its version.
func (r *Registry) permit(ctx context.Context, row stageRow, to Setting) error {
	if !row.adjacent(to) {
		return ErrStageNotAdjacent
	}
	if row.skips(to) {
		return ErrStageNotWhole
	}
	if to.below(row.Setting) {
		return nil
	}
	var behind bool
	if err := r.db.Querier(ctx).QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM rollout_instances
		WHERE module = $1 AND version < $2 AND seen_at > clock_timestamp() - $3::float8 * interval '1 second')`,
		row.module, row.version, aliveFor.Seconds()).Scan(&behind); err != nil {
		return db.Translate(err, nil)
	}
	if behind {
		return ErrInstancesNotCaughtUp
	}
	return nil
}

// move writes a move that is permitted.
func (r *Registry) move(ctx context.Context, row stageRow, c Change) error {
	fleets, err := r.fleets(ctx)
	if err != nil {
		return err
	}
	if _, err := r.db.Querier(ctx).ExecContext(ctx,
		`UPDATE rollout_stages SET stage = $2, reach = $3, version = version + 1, held = $4, baseline = $5, changed_at = now()
			WHERE module = $1`,
		c.Module, c.To.Stage, c.To.Reach, c.Actor == Guard, row.known.with(fleets[c.Module].tally, row.now)); err != nil {
		return db.Translate(err, nil)
	}
	if err := r.remember(ctx, c, row.version+1); err != nil {
		return err
	}
	var fields []string
	if c.To.Stage != row.Stage {
		fields = append(fields, "stage")
	}
	if c.To.Reach != row.Reach {
		fields = append(fields, "percent")
	}
	return r.audit.Record(ctx, "module.moved", "module", []string{c.Module}, map[string]any{"fields": fields})
}

// remember adds to the history.
func (r *Registry) remember(ctx context.Context, c Change, version int64) error {
	_, err := r.db.Querier(ctx).ExecContext(ctx,
		`INSERT INTO rollout_history (module, version, stage, reach, actor, reason) VALUES ($1, $2, $3, $4, $5, $6)`,
		c.Module, version, c.To.Stage, c.To.Reach, c.Actor, c.Reason)
	return db.Translate(err, nil)
}

// enter gives the table a module's initial setting, if it has none.
func (r *Registry) enter(ctx context.Context, m *Module) error {
	return r.db.InTx(ctx, func(ctx context.Context) error {
		result, err := r.db.Querier(ctx).ExecContext(ctx,
			`INSERT INTO rollout_stages (module, stage, reach) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
			m.name, m.spec.Initial.Stage, m.spec.Initial.Reach)
		if err != nil {
			return db.Translate(err, nil)
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return db.Translate(err, nil)
		}
		c := Change{Module: m.name, To: m.spec.Initial, Actor: "configuration", Reason: "The initial stage."}
		return r.remember(ctx, c, 1)
	})
}

// stages reads the table.
func (r *Registry) stages(ctx context.Context) ([]stageRow, error) {
	rows, err := r.db.Querier(ctx).QueryContext(ctx, `SELECT `+stageColumns+` FROM rollout_stages`)
	if err != nil {
		return nil, db.Translate(err, nil)
	}
	defer rows.Close()
	var list []stageRow
	for rows.Next() {
		var row stageRow
		if err := rows.Scan(row.fields()...); err != nil {
			return nil, err
		}
		list = append(list, row)
	}
	return list, db.Translate(rows.Err(), nil)
}

// beat acknowledges what is in force in this process, publishes what it has counted since, and forgets the instances
// that have long gone.
func (r *Registry) beat(ctx context.Context) error {
	type entry struct {
		Module  string `json:"module"`
		Version int64  `json:"version"`
		Tally   tally  `json:"tally"`
	}
	entries := make([]entry, len(r.modules))
	for i, m := range r.modules {
		s := m.current.Load()
		entries[i] = entry{m.name, s.version, m.counters.tally().minus(s.base)}
	}
	data, err := json.Marshal(entries)
	if err != nil {
		return err
	}
	_, err = r.db.Querier(ctx).ExecContext(ctx, `WITH gone AS (
			DELETE FROM rollout_instances WHERE seen_at < clock_timestamp() - $3::float8 * interval '1 second'
		)
		INSERT INTO rollout_instances (instance, module, version, tally, seen_at)
		SELECT $1, module, version, tally, clock_timestamp()
		FROM jsonb_to_recordset($2::jsonb) AS entry (module text, version bigint, tally jsonb)
		ON CONFLICT (instance, module) DO UPDATE
		SET version = excluded.version, tally = excluded.tally, seen_at = excluded.seen_at`,
		r.id, string(data), keptFor.Seconds())
	return db.Translate(err, nil)
}

// leave says that this instance is not live any more, so that nobody waits for it.
func (r *Registry) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.PollInterval)
	defer cancel()
	_, _ = r.db.Querier(ctx).ExecContext(ctx, // else it is taken for live a while longer
		`UPDATE rollout_instances SET seen_at = clock_timestamp() - $2::float8 * interval '1 second' WHERE instance = $1`,
		r.id, aliveFor.Seconds())
}

// fleet is what all instances together have counted since a version came into force.
type fleet struct {
	tally
	live  int // instances
	acked int // of those, how many have taken the version over
}

// fleets reads what the instances have published, by module.
func (r *Registry) fleets(ctx context.Context) (map[string]fleet, error) {
	rows, err := r.db.Querier(ctx).QueryContext(ctx, `SELECT i.module, i.tally, i.version >= s.version,
			i.seen_at > clock_timestamp() - $1::float8 * interval '1 second'
		FROM rollout_instances i JOIN rollout_stages s USING (module)`, aliveFor.Seconds())
	if err != nil {
		return nil, db.Translate(err, nil)
	}
	defer rows.Close()
	all := map[string]fleet{}
	for rows.Next() {
		var (
			name        string
			data        []byte
			acked, live bool
			t           tally
		)
		if err := rows.Scan(&name, &data, &acked, &live); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, &t); err != nil {
			return nil, err
		}
		f := all[name]
		if live {
			f.live++
		}
		if acked {
			f.tally = f.plus(t)
		}
		if live && acked {
			f.acked++
		}
		all[name] = f
	}
	return all, db.Translate(rows.Err(), nil)
}

// History returns a module's moves, the newest first, limit at most, before a version (0: all).
//
// Errors: ErrNotFound, those of the database.
func (r *Registry) History(ctx context.Context, module string, before int64, limit int) ([]Record, error) {
	if r.module(module) == nil {
		return nil, ErrNotFound
	}
	rows, err := r.db.Querier(ctx).QueryContext(ctx, `SELECT stage, reach, version, actor, reason, changed_at
		FROM rollout_history WHERE module = $1 AND ($2 = 0 OR version < $2) ORDER BY version DESC LIMIT $3`,
		module, before, limit)
	if err != nil {
		return nil, db.Translate(err, nil)
	}
	defer rows.Close()
	var list []Record
	for rows.Next() {
		var c Record
		if err := rows.Scan(&c.Stage, &c.Reach, &c.Version, &c.Actor, &c.Reason, &c.ChangedAt); err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, db.Translate(rows.Err(), nil)
}

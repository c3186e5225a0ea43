package auditlog

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/db"
)

// DirectRepository is the first rung: the SQL that a team has today, written by hand on database/sql.
type DirectRepository struct {
	db *db.DB
}

var _ Repository = (*DirectRepository)(nil)

// NewDirectRepository returns a DirectRepository on this pool.
func NewDirectRepository(d *db.DB) *DirectRepository { return &DirectRepository{db: d} }

// eventColumns are what scanEvent takes, from audit_events e and audit_origins o.
const eventColumns = `e.id, e.occurred_at, e.action, e.actor_type, e.actor_id, e.target_type, e.target_id, e.origin,
	e.request_id, e.recorded_by, e.metadata, coalesce(o.ip, ''), coalesce(o.user_agent, '')`

// withOrigin joins events with their origins, as far as those have not been erased.
const withOrigin = ` e LEFT JOIN audit_origins o ON o.hash = e.origin AND o.occurred_at = e.occurred_at`

func scanEvent(row interface{ Scan(dest ...any) error }, more ...any) (Event, error) {
	var e Event
	err := row.Scan(append([]any{
		&e.ID, &e.OccurredAt, &e.Action, &e.Actor.Type, &e.Actor.ID, &e.Target.Type, &e.Target.ID, &e.Origin,
		&e.RequestID, &e.RecordedBy, (*[]byte)(&e.Metadata), &e.IP, &e.UserAgent,
	}, more...)...)
	return e, translate(err)
}

// translate maps an error of the database to the module's.
func translate(err error) error {
	if db.IsNoRows(err) {
		return ErrNotFound
	}
	return db.Translate(err, nil)
}

// ByID implements Reader.
func (r *DirectRepository) ByID(ctx context.Context, id uuid.UUID) (Event, error) {
	return scanEvent(r.db.Querier(ctx).QueryRowContext(ctx,
		`SELECT `+eventColumns+` FROM audit_events`+withOrigin+` WHERE e.id = $1`, id))
}

// List implements Reader.
func (r *DirectRepository) List(ctx context.Context, f Filter) ([]Event, error) {
	query, args := listQuery(f)
	rows, err := r.db.Querier(ctx).QueryContext(ctx, query, args...)
	if err != nil {
		return nil, translate(err)
	}
	defer rows.Close()
	page := make([]Event, 0, f.Limit)
	for rows.Next() {
		e, err := scanEvent(rows)
		if err != nil {
			return nil, err
		}
		page = append(page, e)
	}
	return page, translate(rows.Err())
}

// listQuery reads each of the filter's branches along its index, no further than the page needs, and joins the origins
// to the page alone.
func listQuery(f Filter) (string, []any) {
	const order = ` ORDER BY occurred_at DESC, id DESC LIMIT $1`
	args := []any{f.Limit}
	var branches []string
	for _, conditions := range f.branches() {
		where := []string{"true"}
		for _, c := range conditions {
			for _, arg := range c.args {
				args = append(args, arg)
				c.sql = strings.Replace(c.sql, "?", fmt.Sprintf("$%d", len(args)), 1)
			}
			where = append(where, c.sql)
		}
		branches = append(branches, `(SELECT * FROM audit_events WHERE `+strings.Join(where, " AND ")+order+`)`)
	}
	page := branches[0]
	if len(branches) > 1 {
		page = `(` + strings.Join(branches, ` UNION ALL `) + order + `)`
	}
	return `SELECT ` + eventColumns + ` FROM ` + page + withOrigin +
		` ORDER BY e.occurred_at DESC, e.id DESC`, args
}

// HasOrigins implements Reader.
func (r *DirectRepository) HasOrigins(ctx context.Context, subjectID string) (bool, error) {
	var has bool
	err := r.db.Querier(ctx).QueryRowContext(ctx,
		`SELECT EXISTS (SELECT FROM audit_origins WHERE subject_id = $1)`, subjectID).Scan(&has)
	return has, translate(err)
}

// Append implements Repository.
func (r *DirectRepository) Append(ctx context.Context, events []Event, origins []Origin) (time.Time, error) {
	var occurredAt time.Time
	err := r.db.Querier(ctx).QueryRowContext(ctx, appendSQL, appendArgs(events, origins)...).Scan(&occurredAt)
	return occurredAt, translate(err)
}

// EraseOrigins implements Repository.
func (r *DirectRepository) EraseOrigins(ctx context.Context, subjectID string) error {
	_, err := r.db.Querier(ctx).ExecContext(ctx, `DELETE FROM audit_origins WHERE subject_id = $1`, subjectID)
	return translate(err)
}

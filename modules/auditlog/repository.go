package auditlog

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// Repository is the only way to the module's events. It has one implementation per rung of the ladder, and all of them
// pass the same conformance suite (repository_test.go):
//
//	DirectRepository    hand-written SQL, what a team has today
//	PostgresRepository  GORM models on the bounded pool
//	CacheRepository     read-through over PostgresRepository
//	SwitchRepository    picks one of them per key, by the module's stage
//
// The seals on top of the events (tree.go) are new with Strata and have no rungs.
//
// Every method joins the context's transaction. Besides the errors named below, each may return errs.ErrBusy,
// errs.ErrTimeout, errs.ErrUnavailable and errs.ErrCanceled.
type Repository interface {
	Reader

	// Append stores events, all or none, with the origins that they refer to, and returns when they occurred by the
	// database's clock: the start of the transaction.
	//
	// Errors: none of its own.
	Append(ctx context.Context, events []Event, origins []Origin) (time.Time, error)

	// EraseOrigins removes the origins of a subject for good.
	//
	// Errors: none of its own.
	EraseOrigins(ctx context.Context, subjectID string) error
}

// Reader is the part of Repository that changes nothing: all that a comparison of two rungs may call.
type Reader interface {
	// ByID returns an event.
	//
	// Errors: ErrNotFound.
	ByID(ctx context.Context, id uuid.UUID) (Event, error)

	// List returns a page of at most f.Limit events, newest first.
	//
	// Errors: none of its own.
	List(ctx context.Context, f Filter) ([]Event, error)

	// HasOrigins reports whether a subject has origins: one who has been erased has none.
	//
	// Errors: none of its own.
	HasOrigins(ctx context.Context, subjectID string) (bool, error)
}

// condition is a part of a WHERE clause, with a question mark for each argument.
type condition struct {
	sql  string
	args []any
}

// branches returns the alternatives of f as conditions of which no event meets two. A filter by subject has two, since
// an index leads to an actor or to a target, but not to either.
func (f Filter) branches() [][]condition {
	all := f.conditions()
	if f.Subject == "" {
		return [][]condition{all}
	}
	actor := condition{"actor_id = ? AND actor_type = 'user'", []any{f.Subject}}
	target := condition{
		"target_id = ? AND target_type = 'user' AND NOT (actor_id = ? AND actor_type = 'user')",
		[]any{f.Subject, f.Subject},
	}
	return [][]condition{append(all[:len(all):len(all)], actor), append(all[:len(all):len(all)], target)}
}

func (f Filter) conditions() []condition {
	var all []condition
	add := func(sql string, args ...any) { all = append(all, condition{sql, args}) }
	if f.Actor != (Ref{}) {
		add("actor_id = ?", f.Actor.ID)
	}
	if f.Actor.Type != "" {
		add("actor_type = ?", f.Actor.Type)
	}
	if f.Target != (Ref{}) {
		add("target_id = ?", f.Target.ID)
	}
	if f.Target.Type != "" {
		add("target_type = ?", f.Target.Type)
	}
	if f.Action != "" {
		add("action = ?", f.Action)
	}
	if f.From != nil {
		add("occurred_at >= ?", *f.From)
	}
	if f.To != nil {
		add("occurred_at < ?", *f.To)
	}
	if f.After != nil { // the first half is for partition pruning, which does not understand the second
		add("occurred_at <= ? AND (occurred_at, id) < (?, ?)", f.After.OccurredAt, f.After.OccurredAt, f.After.ID)
	}
	return all
}

// appendSQL stores events and their origins, each column as an array, and returns the time that they got. Both rungs run
// it: one round trip and few parameters, whatever the size of the batch.
const appendSQL = `
	WITH origins AS (
		INSERT INTO audit_origins (hash, subject_id, salt, ip, user_agent)
		SELECT * FROM unnest($11::bytea[], $12::text[], $13::bytea[], $14::text[], $15::text[])
	), events AS (
		INSERT INTO audit_events (id, action, actor_type, actor_id, target_type, target_id, origin, request_id, recorded_by, metadata)
		SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::text[],
			$9::text[], $10::text[]::json[])
	)
	SELECT now()`

// appendArgs are the arguments of appendSQL.
func appendArgs(events []Event, origins []Origin) []any {
	return []any{
		column(events, func(e *Event) uuid.UUID { return e.ID }),
		column(events, func(e *Event) string { return e.Action }),
		column(events, func(e *Event) string { return e.Actor.Type }),
		column(events, func(e *Event) string { return e.Actor.ID }),
		column(events, func(e *Event) string { return e.Target.Type }),
		column(events, func(e *Event) string { return e.Target.ID }),
		column(events, func(e *Event) []byte { return e.Origin }),
		column(events, func(e *Event) string { return e.RequestID }),
		column(events, func(e *Event) string { return e.RecordedBy }),
		column(events, func(e *Event) string { return string(e.Metadata) }),
		column(origins, func(o *Origin) []byte { return o.Hash }),
		column(origins, func(o *Origin) string { return o.SubjectID }),
		column(origins, func(o *Origin) []byte { return o.Salt }),
		column(origins, func(o *Origin) string { return o.IP }),
		column(origins, func(o *Origin) string { return o.UserAgent }),
	}
}

// column takes one member of each row.
func column[Row, T any](rows []Row, member func(*Row) T) []T {
	values := make([]T, len(rows))
	for i := range rows {
		values[i] = member(&rows[i])
	}
	return values
}

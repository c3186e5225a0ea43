package auditlog

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"github.com/strata-accounts/strata/platform/db"
)

// PostgresRepository is the second rung: GORM models on the bounded pool.
type PostgresRepository struct {
	db *db.DB
}

var _ Repository = (*PostgresRepository)(nil)

// NewPostgresRepository returns a PostgresRepository on this pool.
func NewPostgresRepository(d *db.DB) *PostgresRepository { return &PostgresRepository{db: d} }

type eventRow struct {
	ID         uuid.UUID `gorm:"primaryKey"`
	OccurredAt time.Time `gorm:"->"`
	Action     string
	ActorType  string
	ActorID    string
	TargetType string
	TargetID   string
	Origin     []byte
	RequestID  string
	RecordedBy string
	Metadata   string
	IP         string `gorm:"->"` // of the joined origin, as is UserAgent
	UserAgent  string `gorm:"->"`
}

func (eventRow) TableName() string { return "audit_events" }

type originRow struct {
	Hash      []byte `gorm:"primaryKey"`
	SubjectID string
	Salt      []byte
	IP        string
	UserAgent string
}

func (originRow) TableName() string { return "audit_origins" }

func toEvent(r eventRow) Event {
	return Event{
		ID: r.ID, OccurredAt: r.OccurredAt, Action: r.Action, Actor: Ref{r.ActorType, r.ActorID},
		Target: Ref{r.TargetType, r.TargetID}, IP: r.IP, UserAgent: r.UserAgent, RequestID: r.RequestID,
		RecordedBy: r.RecordedBy, Metadata: json.RawMessage(r.Metadata), Origin: r.Origin,
	}
}

// ByID implements Reader.
func (r *PostgresRepository) ByID(ctx context.Context, id uuid.UUID) (Event, error) {
	var row eventRow
	err := joinOrigin(r.db.Gorm(ctx).Table("audit_events AS e")).Where("e.id = ?", id).Take(&row).Error
	return toEvent(row), translate(err)
}

// List implements Reader.
func (r *PostgresRepository) List(ctx context.Context, f Filter) ([]Event, error) {
	rows := make([]eventRow, 0, f.Limit)
	if err := r.list(ctx, f).Find(&rows).Error; err != nil {
		return nil, translate(err)
	}
	events := make([]Event, len(rows))
	for i, row := range rows {
		events[i] = toEvent(row)
	}
	return events, nil
}

// list reads each of the filter's branches along its index, no further than the page needs, and joins the origins to
// the page alone.
func (r *PostgresRepository) list(ctx context.Context, f Filter) *gorm.DB {
	branches := f.branches()
	page := r.page(ctx, branches[0], f.Limit)
	if len(branches) == 2 {
		page = r.db.Gorm(ctx).Table("((?) UNION ALL (?)) AS found", page, r.page(ctx, branches[1], f.Limit)).
			Order("occurred_at DESC, id DESC").Limit(f.Limit)
	}
	return joinOrigin(r.db.Gorm(ctx).Table("(?) AS e", page)).Order("e.occurred_at DESC, e.id DESC")
}

func (r *PostgresRepository) page(ctx context.Context, conditions []condition, limit int) *gorm.DB {
	query := r.db.Gorm(ctx).Table("audit_events").Order("occurred_at DESC, id DESC").Limit(limit)
	for _, c := range conditions {
		query = query.Where(c.sql, c.args...)
	}
	return query
}

// joinOrigin adds the origin, as far as it has not been erased, to each event in e.
func joinOrigin(query *gorm.DB) *gorm.DB {
	return query.Select("e.*, coalesce(o.ip, '') AS ip, coalesce(o.user_agent, '') AS user_agent").
		Joins("LEFT JOIN audit_origins o ON o.hash = e.origin AND o.occurred_at = e.occurred_at")
}

// HasOrigins implements Reader.
func (r *PostgresRepository) HasOrigins(ctx context.Context, subjectID string) (bool, error) {
	var found []originRow
	err := r.db.Gorm(ctx).Select("hash").Where("subject_id = ?", subjectID).Limit(1).Find(&found).Error
	return len(found) > 0, translate(err)
}

// Append implements Repository.
func (r *PostgresRepository) Append(ctx context.Context, events []Event, origins []Origin) (time.Time, error) {
	var occurredAt time.Time
	err := r.db.Gorm(ctx).Raw(appendSQL, appendArgs(events, origins)...).Row().Scan(&occurredAt)
	return occurredAt, translate(err)
}

// EraseOrigins implements Repository.
func (r *PostgresRepository) EraseOrigins(ctx context.Context, subjectID string) error {
	return translate(r.db.Gorm(ctx).Where("subject_id = ?", subjectID).Delete(&originRow{}).Error)
}

package auditlog

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/strata-accounts/strata/platform/db"
)

// partitionsAhead is how many months beyond this one have their partitions.
const partitionsAhead = 3

// actionDropped is the action with which retention records that it dropped a month.
const actionDropped = "audit_log.partition_dropped"

const (
	dropTimeout     = time.Minute
	dropLockTimeout = "2s" // how long writers may be held up by a drop that waits for readers
)

// AddPartitions sees to the partitions of this month and the next ones, and returns how many were missing. What came
// while one was missing is moved there. Several instances may call it at once.
func (l *Log) AddPartitions(ctx context.Context) (int, error) {
	var added int
	err := l.db.InTx(ctx, func(ctx context.Context) error {
		return l.db.Querier(ctx).QueryRowContext(ctx, `SELECT audit_add_partitions($1)`, partitionsAhead).Scan(&added)
	}, db.Timeout(dropTimeout))
	return added, db.Translate(err, nil)
}

// DropExpired drops the oldest month whose events are all older than retention, and records that it did; it reports
// whether there was one. A month whose events are not all sealed is left alone. The events' hashes stay in the tree.
func (l *Log) DropExpired(ctx context.Context, retention time.Duration, record func(ctx context.Context, e Event) error) (bool, error) {
	dropped := false
	err := l.db.InTx(ctx, func(ctx context.Context) error {
		mine, err := tryLock(ctx, l.db.Querier(ctx), "strata.auditlog.retention")
		if err != nil || !mine {
			return err
		}
		month, found, err := l.expired(ctx, retention)
		if err != nil || !found {
			return err
		}
		before, err := l.retained(ctx) // before the drop, which may take the event that says so
		if err != nil {
			return err
		}
		events, sealed, err := l.dropPartition(ctx, month)
		if err != nil || !sealed {
			return err
		}
		metadata, err := json.Marshal(map[string]any{
			"month": month.Format("2006-01"), "events": events,
			"before": month.AddDate(0, 1, 0), "events_total": before.Total + events,
		})
		if err != nil {
			return err
		}
		dropped = true
		return record(ctx, Event{
			Action: actionDropped, Actor: Ref{System, "retention"}, Target: Ref{"audit_month", month.Format("2006-01")}, Metadata: metadata,
		})
	}, db.Timeout(dropTimeout))
	return dropped, err
}

// expired returns the first of the oldest month that has a partition, if all of it is older than retention.
func (l *Log) expired(ctx context.Context, retention time.Duration) (month time.Time, found bool, err error) {
	var name string
	var now time.Time
	err = l.db.Querier(ctx).QueryRowContext(ctx, `SELECT min(inhrelid::regclass::text), now() FROM pg_inherits
		WHERE inhparent = 'audit_events'::regclass AND inhrelid::regclass::text <> 'audit_events_default'
		HAVING count(*) > 0`).Scan(&name, &now)
	if db.IsNoRows(err) {
		return month, false, nil
	}
	if err != nil {
		return month, false, db.Translate(err, nil)
	}
	if month, err = time.Parse(partitionName, name); err != nil {
		return month, false, fmt.Errorf("partition %s: %w", name, err)
	}
	return month, month.AddDate(0, 1, 0).Before(now.Add(-retention)), nil
}

// partitionName is the name of a month's partition of the events, as a layout of package time.
const partitionName = "audit_events_2006_01"

// dropPartition drops a month and returns how many events it had, unless some are not sealed.
func (l *Log) dropPartition(ctx context.Context, month time.Time) (events int64, sealed bool, err error) {
	q := l.db.Querier(ctx)
	if _, err := q.ExecContext(ctx, `SELECT set_config('lock_timeout', $1, true)`, dropLockTimeout); err != nil {
		return 0, false, db.Translate(err, nil)
	}
	name := month.Format(partitionName)
	if _, err := q.ExecContext(ctx, `LOCK TABLE `+name+` IN ACCESS EXCLUSIVE MODE`); err != nil {
		return 0, false, db.Translate(err, nil)
	}
	head, err := l.head(ctx)
	if err != nil {
		return 0, false, err
	}
	err = q.QueryRowContext(ctx, `SELECT count(*), NOT EXISTS (SELECT FROM `+name+` WHERE (txid, id) > ($1::text::xid8, $2)) FROM `+name,
		head.lastTxid, head.lastID).Scan(&events, &sealed)
	if err != nil || !sealed {
		return 0, false, db.Translate(err, nil)
	}
	_, err = q.ExecContext(ctx, `DROP TABLE IF EXISTS `+name+`, `+month.Format("audit_origins_2006_01"))
	return events, true, db.Translate(err, nil)
}

package auditlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/strata-accounts/strata/platform/db"
)

// sealTimeout bounds the transaction that seals one batch.
const sealTimeout = 30 * time.Second

// Log is the sealed log: a Merkle tree over the events in their final order.
//
// That order is by transaction id, then by event id. It is final for events whose transaction id lies below
// pg_snapshot_xmin: every such transaction has ended, and none to come can have a lower id. Writers therefore take no
// lock, and wait for nobody.
type Log struct {
	db    *db.DB
	keys  *Keys
	batch int // events in a seal, at most
}

// NewLog returns the log that these keys sign, sealed in batches of at most batch events.
func NewLog(d *db.DB, keys *Keys, batch int) *Log {
	return &Log{db: d, keys: keys, batch: batch}
}

// seal is a row of audit_seals.
type seal struct {
	batch      int64
	first      int64
	size       int64
	lastTxid   string
	lastID     uuid.UUID
	root       tlog.Hash
	checkpoint string
	sealedAt   time.Time
}

// genesis is what precedes the first seal.
var genesis = seal{lastTxid: "0", root: emptyRoot}

var emptyRoot, _ = tlog.TreeHash(0, nil) // cannot fail: nothing is read

const sealColumns = `batch, first, size, last_txid::text, last_id, root, checkpoint, sealed_at`

func scanSeal(row interface{ Scan(dest ...any) error }) (seal, error) {
	var s seal
	var root []byte
	err := row.Scan(&s.batch, &s.first, &s.size, &s.lastTxid, &s.lastID, &root, &s.checkpoint, &s.sealedAt)
	if err == nil && copy(s.root[:], root) != tlog.HashSize {
		err = fmt.Errorf("root hash of batch %d: %w", s.batch, ErrTampered)
	}
	return s, err
}

// latest returns the newest seal, or genesis.
func (l *Log) latest(ctx context.Context) (seal, error) {
	s, err := scanSeal(l.db.Querier(ctx).QueryRowContext(ctx,
		`SELECT `+sealColumns+` FROM audit_seals ORDER BY batch DESC LIMIT 1`))
	if db.IsNoRows(err) {
		return genesis, nil
	}
	return s, db.Translate(err, nil)
}

// head returns the newest seal after checking that this log's key vouches for it. Errors: ErrTampered, ErrForeignKey.
func (l *Log) head(ctx context.Context) (seal, error) {
	s, err := l.latest(ctx)
	if err != nil || s.size == 0 {
		return s, err
	}
	if err := l.vouched(s); err != nil {
		return seal{}, err
	}
	return s, nil
}

// vouched reports an error unless the seal's checkpoint is signed and says the same as its row.
func (l *Log) vouched(s seal) error {
	c, err := l.keys.open(s.checkpoint)
	var unknown *note.UnverifiedNoteError
	if errors.As(err, &unknown) {
		return ErrForeignKey.Wrap(err)
	}
	if err != nil {
		return ErrTampered.Wrap(err)
	}
	if c.Size != s.size || c.Root != s.root {
		return ErrTampered.Wrap(fmt.Errorf("the checkpoint of batch %d is another tree's", s.batch))
	}
	return nil
}

// Seal seals the next batch of events and returns their number: 0 where there are none, or another instance is sealing.
//
// Errors: ErrTampered where the log so far does not match its last checkpoint, ErrForeignKey where that is not signed by
// a known key. Nothing is sealed on top of either.
func (l *Log) Seal(ctx context.Context) (int, error) {
	sealed := 0
	err := l.db.InTx(ctx, func(ctx context.Context) error {
		mine, err := tryLock(ctx, l.db.Querier(ctx), "strata.auditlog.seal")
		if err != nil || !mine {
			return err
		}
		head, err := l.head(ctx)
		if err != nil {
			return err
		}
		events, lastTxid, err := l.final(ctx, head)
		if err != nil || len(events) == 0 {
			return err
		}
		sealed = len(events)
		return l.extend(ctx, head, events, lastTxid)
	}, db.Timeout(sealTimeout))
	return sealed, err
}

// tryLock takes an advisory lock until the transaction's end, and reports whether nobody else had it.
func tryLock(ctx context.Context, q db.Querier, name string) (bool, error) {
	var taken bool
	err := q.QueryRowContext(ctx, `SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))`, name).Scan(&taken)
	return taken, db.Translate(err, nil)
}

// final returns the next events in final order, and the transaction id of the last one.
func (l *Log) final(ctx context.Context, head seal) (events []Event, lastTxid string, err error) {
	rows, err := l.db.Querier(ctx).QueryContext(ctx, `SELECT e.id, e.occurred_at, e.action, e.actor_type, e.actor_id, e.target_type,
			e.target_id, e.origin, e.request_id, e.recorded_by, e.metadata, '', '', e.txid::text
		FROM audit_events e
		WHERE (e.txid, e.id) > ($1::text::xid8, $2) AND e.txid < pg_snapshot_xmin(pg_current_snapshot())
		ORDER BY e.txid, e.id LIMIT $3`, head.lastTxid, head.lastID, l.batch)
	if err != nil {
		return nil, "", translate(err)
	}
	defer rows.Close()
	for rows.Next() {
		e, err := scanEvent(rows, &lastTxid)
		if err != nil {
			return nil, "", err
		}
		events = append(events, e)
	}
	return events, lastTxid, translate(rows.Err())
}

// pending returns since when the oldest event that is not sealed has waited, or nil where all are.
func (l *Log) pending(ctx context.Context) (*time.Duration, error) {
	var seconds float64
	err := l.db.Querier(ctx).QueryRowContext(ctx, `
		WITH head AS (SELECT last_txid, last_id FROM audit_seals ORDER BY batch DESC LIMIT 1)
		SELECT extract(epoch FROM clock_timestamp() - occurred_at) FROM audit_events
		WHERE (txid, id) > (coalesce((SELECT last_txid FROM head), '0'::xid8), coalesce((SELECT last_id FROM head), $1))
		ORDER BY txid, id LIMIT 1`, uuid.Nil).Scan(&seconds)
	if db.IsNoRows(err) {
		return nil, nil
	}
	waited := time.Duration(seconds * float64(time.Second))
	return &waited, db.Translate(err, nil)
}

// extend adds events to the tree and signs what it has become.
func (l *Log) extend(ctx context.Context, head seal, events []Event, lastTxid string) error {
	q := l.db.Querier(ctx)
	tree := &growth{
		size: head.size, old: newTiles(ctx, q).reader(head.size, head.root),
		fresh: make(map[int64]tlog.Hash, 2*len(events)),
	}
	ids := make([]string, len(events))
	times := make([]time.Time, len(events))
	for i, e := range events {
		ids[i], times[i] = e.ID.String(), e.OccurredAt
		if err := tree.add(e.leafHash()); err != nil {
			return damaged(err)
		}
	}
	root, err := tlog.TreeHash(tree.size, tree)
	if err != nil {
		return damaged(err)
	}
	checkpoint, err := l.keys.sign(tree.size, root)
	if err != nil {
		return err
	}
	if err := tree.store(ctx, q, head.size); err != nil {
		return err
	}
	if _, err = q.ExecContext(ctx, `INSERT INTO audit_leaves (seq, event_id, occurred_at)
		SELECT $1 + n - 1, id, at FROM unnest($2::text[]::uuid[], $3::timestamptz[]) WITH ORDINALITY AS t (id, at, n)`,
		head.size, ids, times); err != nil {
		return db.Translate(err, nil)
	}
	_, err = q.ExecContext(ctx, `INSERT INTO audit_seals (batch, first, size, last_txid, last_id, root, checkpoint)
		VALUES ($1, $2, $3, $4::text::xid8, $5, $6, $7)`,
		head.batch+1, head.size, tree.size, lastTxid, ids[len(ids)-1], root[:], checkpoint.Note)
	return db.Translate(err, nil)
}

package auditlog

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/strata-accounts/strata/platform/db"
)

// maxTransaction is how long a transaction may have run before it recorded its first event. One that claims to have run
// longer has been given a false date.
const maxTransaction = time.Hour

// batchTimeout bounds the reading of one batch.
const batchTimeout = time.Minute

// batchContent is what the tables hold of one batch.
type batchContent struct {
	seal   seal
	first  int64
	leaves []leafRow                 // by seq, from first; zero where missing
	stored []tlog.Hash               // the leaves' hashes in the tree; zero where missing
	events map[uuid.UUID]*foundEvent // those that stand between the batch's bounds
}

type leafRow struct {
	eventID    uuid.UUID
	occurredAt time.Time
}

type foundEvent struct {
	hash       tlog.Hash
	occurredAt time.Time
	isLeaf     bool
}

// batch verifies the events that s has sealed.
func (v *verification) batch(ctx context.Context, previous, s seal) error {
	if s.batch != previous.batch+1 || s.first != previous.size {
		v.problem(Problem{Finding: SealDamaged, Batch: s.batch, Seq: -1, Detail: fmt.Sprintf(
			"the seals before it are missing: it begins at leaf %d, and the one before ends at %d", s.first, previous.size)})
	}
	if err := v.vouched(s); err != nil {
		v.problem(Problem{Finding: SealDamaged, Batch: s.batch, Seq: -1, Detail: err.Error()})
	}
	b, err := v.read(ctx, previous, s)
	if err != nil {
		return err
	}
	computed := v.compute(b)
	tree := v.tree.extend(computed)
	var root *tlog.Hash // nil where nothing trustworthy says what it must be
	if c, err := v.keys.open(s.checkpoint); err == nil && c.Size == s.size && !v.lost {
		root = &c.Root
	}
	switch {
	case slices.Equal(computed, b.stored):
		if root != nil && tree.root() != *root {
			v.lost = true
			v.problem(Problem{
				Finding: RootMismatch, Batch: s.batch, Seq: -1,
				Detail: fmt.Sprintf("leaves %d to %d are not those of the signed checkpoint", b.first, s.size-1),
			})
		}
	case root != nil && tree.root() == *root:
		v.problem(Problem{Finding: TreeDamaged, Batch: s.batch, Seq: -1, Detail: "the stored hashes of its leaves are wrong"})
	default:
		v.compare(b, computed)
		tree = v.tree.extend(b.stored)
		if root != nil && tree.root() != *root {
			v.lost = true
			v.problem(Problem{Finding: RootMismatch, Batch: s.batch, Seq: -1, Detail: "the stored hashes are wrong as well"})
		}
	}
	v.inserted(b)
	return v.grown(ctx, s.batch, tree)
}

// compute returns the leaves' hashes as the events have them, or as stored where the event is gone.
func (v *verification) compute(b *batchContent) []tlog.Hash {
	computed := slices.Clone(b.stored)
	for i, leaf := range b.leaves {
		seq := b.first + int64(i)
		e := b.events[leaf.eventID]
		switch {
		case leaf.eventID == uuid.Nil:
			v.problem(Problem{Finding: DeletedEvent, Batch: b.seal.batch, Seq: seq, Detail: "the leaf is gone"})
		case e == nil && leaf.occurredAt.Before(v.retention.Before):
			v.report.Expired++
		case e == nil:
			v.problem(Problem{
				Finding: DeletedEvent, Batch: b.seal.batch, Seq: seq, EventID: leaf.eventID,
				Detail: "the event is gone, or stands elsewhere in the order",
			})
		default:
			e.isLeaf = true
			computed[i] = e.hash
			v.checkDate(b, seq, leaf.eventID, e.occurredAt)
		}
	}
	return computed
}

// checkDate reports an event that is dated before others by more than its transaction can have taken: transaction ids
// are given in the order of time.
func (v *verification) checkDate(b *batchContent, seq int64, id uuid.UUID, at time.Time) {
	if v.newest.Sub(at) > maxTransaction {
		v.problem(Problem{
			Finding: Backdated, Batch: b.seal.batch, Seq: seq, EventID: id,
			Detail: fmt.Sprintf("it is dated %s, after an event of %s", at.UTC().Format(leafTime), v.newest.UTC().Format(leafTime)),
		})
	}
	if at.After(v.newest) {
		v.newest = at
	}
}

// compare reports each event that is not what the tree says.
func (v *verification) compare(b *batchContent, computed []tlog.Hash) {
	places := make(map[tlog.Hash]int64, len(b.stored))
	for i, h := range b.stored {
		places[h] = b.first + int64(i)
	}
	for i, h := range computed {
		if h == b.stored[i] {
			continue
		}
		p := Problem{
			Finding: Edited, Batch: b.seal.batch, Seq: b.first + int64(i), EventID: b.leaves[i].eventID,
			Detail: "it is not what was sealed",
		}
		if place, ok := places[h]; ok {
			p.Finding, p.Detail = Swapped, fmt.Sprintf("it was sealed as leaf %d", place)
		}
		v.problem(p)
	}
}

// inserted reports events that stand among the batch's and are not its leaves.
func (v *verification) inserted(b *batchContent) {
	for id, e := range b.events {
		if !e.isLeaf {
			v.problem(Problem{Finding: Inserted, Batch: b.seal.batch, Seq: -1, EventID: id, Detail: "it was not sealed with the batch"})
		}
	}
}

// read collects what the tables hold of the batch.
func (v *verification) read(ctx context.Context, previous, s seal) (*batchContent, error) {
	b := &batchContent{seal: s, first: previous.size, events: map[uuid.UUID]*foundEvent{}}
	b.leaves = make([]leafRow, s.size-b.first)
	err := v.db.InTx(ctx, func(ctx context.Context) error {
		// The planner takes a range of (txid, id) for a ninth of the table, and would read all of it for each batch.
		_, err := v.db.Querier(ctx).ExecContext(ctx, `SELECT set_config(name, 'off', true)
			FROM unnest(ARRAY['enable_seqscan', 'enable_hashjoin', 'enable_mergejoin']) AS name`)
		if err != nil {
			return db.Translate(err, nil)
		}
		if err := v.readLeaves(ctx, b); err != nil {
			return err
		}
		if err := v.readStored(ctx, b); err != nil {
			return err
		}
		return v.readEvents(ctx, previous, b)
	}, db.ReadOnly(), db.Timeout(batchTimeout))
	return b, err
}

func (v *verification) readLeaves(ctx context.Context, b *batchContent) error {
	rows, err := v.db.Querier(ctx).QueryContext(ctx,
		`SELECT seq, event_id, occurred_at FROM audit_leaves WHERE seq >= $1 AND seq < $2`, b.first, b.seal.size)
	if err != nil {
		return db.Translate(err, nil)
	}
	defer rows.Close()
	for rows.Next() {
		var seq int64
		var leaf leafRow
		if err := rows.Scan(&seq, &leaf.eventID, &leaf.occurredAt); err != nil {
			return db.Translate(err, nil)
		}
		b.leaves[seq-b.first] = leaf
	}
	return db.Translate(rows.Err(), nil)
}

func (v *verification) readStored(ctx context.Context, b *batchContent) error {
	b.stored = make([]tlog.Hash, len(b.leaves))
	rows, err := v.db.Querier(ctx).QueryContext(ctx, `SELECT n, data FROM audit_tiles WHERE level = 0 AND n BETWEEN $1 AND $2`,
		b.first>>tileHeight, (b.seal.size-1)>>tileHeight)
	if err != nil {
		return db.Translate(err, nil)
	}
	defer rows.Close()
	for rows.Next() {
		var n int64
		var data []byte
		if err := rows.Scan(&n, &data); err != nil {
			return db.Translate(err, nil)
		}
		for i := 0; (i+1)*tlog.HashSize <= len(data); i++ {
			if at := n<<tileHeight + int64(i) - b.first; at >= 0 && at < int64(len(b.stored)) {
				copy(b.stored[at][:], data[i*tlog.HashSize:])
			}
		}
	}
	return db.Translate(rows.Err(), nil)
}

func (v *verification) readEvents(ctx context.Context, previous seal, b *batchContent) error {
	rows, err := v.db.Querier(ctx).QueryContext(ctx, `SELECT `+eventColumns+`, o.salt FROM audit_events`+withOrigin+`
		WHERE (e.txid, e.id) > ($1::text::xid8, $2) AND (e.txid, e.id) <= ($3::text::xid8, $4)`,
		previous.lastTxid, previous.lastID, b.seal.lastTxid, b.seal.lastID)
	if err != nil {
		return db.Translate(err, nil)
	}
	defer rows.Close()
	for rows.Next() {
		var salt []byte
		e, err := scanEvent(rows, &salt)
		if err != nil {
			return err
		}
		b.events[e.ID] = &foundEvent{hash: e.leafHash(), occurredAt: e.OccurredAt}
		switch {
		case e.Origin == nil:
		case salt == nil:
			v.report.Erased++
		case !bytes.Equal(Origin{Salt: salt, IP: e.IP, UserAgent: e.UserAgent}.commit(), e.Origin):
			v.problem(Problem{
				Finding: OriginEdited, Batch: b.seal.batch, Seq: -1, EventID: e.ID,
				Detail: "its ip or user agent is not what was recorded",
			})
		}
	}
	return db.Translate(rows.Err(), nil)
}

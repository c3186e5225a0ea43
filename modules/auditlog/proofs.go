package auditlog

import (
	"context"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/errs"
)

// InclusionProof shows that an event is a leaf of the tree of a given size (RFC 6962, section 2.1.1).
type InclusionProof struct {
	Index  int64 // the leaf's, from 0
	Size   int64
	Leaf   tlog.Hash
	Root   tlog.Hash
	Hashes []tlog.Hash
	Note   string // the checkpoint of that size; empty where none was signed
}

// ConsistencyProof shows that the tree of size From is the beginning of the one of size To (RFC 6962, section 2.1.2).
type ConsistencyProof struct {
	From, To         int64
	FromRoot, ToRoot tlog.Hash
	Hashes           []tlog.Hash
}

// Public returns the key with which the log's checkpoints are verified.
func (l *Log) Public() string { return l.keys.Public() }

// Checkpoint returns the newest checkpoint. Errors: ErrNoCheckpoint, ErrTampered, ErrForeignKey.
func (l *Log) Checkpoint(ctx context.Context) (Checkpoint, error) {
	head, err := l.head(ctx)
	if err != nil {
		return Checkpoint{}, err
	}
	if head.size == 0 {
		return Checkpoint{}, ErrNoCheckpoint
	}
	return Checkpoint{Origin: l.keys.Origin(), Size: head.size, Root: head.root, Note: head.checkpoint}, nil
}

// Inclusion proves that an event is in the tree of this size; 0 means the newest.
//
// Errors: ErrNotFound, ErrNotSealed, ErrTreeSize, ErrTampered, ErrForeignKey.
func (l *Log) Inclusion(ctx context.Context, eventID uuid.UUID, size int64) (InclusionProof, error) {
	index, err := l.index(ctx, eventID)
	if err != nil {
		return InclusionProof{}, err
	}
	size, reader, err := l.at(ctx, "size", size)
	if err != nil {
		return InclusionProof{}, err
	}
	if index >= size {
		return InclusionProof{}, treeSize("size")
	}
	p := InclusionProof{Index: index, Size: size}
	leaf, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
	if err != nil {
		return InclusionProof{}, damaged(err)
	}
	p.Leaf = leaf[0]
	if p.Root, err = tlog.TreeHash(size, reader); err != nil {
		return InclusionProof{}, damaged(err)
	}
	if p.Hashes, err = tlog.ProveRecord(size, index, reader); err != nil {
		return InclusionProof{}, damaged(err)
	}
	err = l.db.Querier(ctx).QueryRowContext(ctx, `SELECT checkpoint FROM audit_seals WHERE size = $1`, size).Scan(&p.Note)
	if err != nil && !db.IsNoRows(err) {
		return InclusionProof{}, db.Translate(err, nil)
	}
	return p, nil
}

// Consistency proves that the log only grew from one size to another; a to of 0 means the newest.
//
// Errors: ErrTreeSize, ErrTampered, ErrForeignKey.
func (l *Log) Consistency(ctx context.Context, from, to int64) (ConsistencyProof, error) {
	to, reader, err := l.at(ctx, "to", to)
	if err != nil {
		return ConsistencyProof{}, err
	}
	if from < 1 || from > to {
		return ConsistencyProof{}, treeSize("from")
	}
	p := ConsistencyProof{From: from, To: to}
	if p.FromRoot, err = tlog.TreeHash(from, reader); err != nil {
		return ConsistencyProof{}, damaged(err)
	}
	if p.ToRoot, err = tlog.TreeHash(to, reader); err != nil {
		return ConsistencyProof{}, damaged(err)
	}
	if p.Hashes, err = tlog.ProveTree(to, from, reader); err != nil {
		return ConsistencyProof{}, damaged(err)
	}
	return p, nil
}

// index returns which leaf an event is.
func (l *Log) index(ctx context.Context, eventID uuid.UUID) (int64, error) {
	var index *int64
	err := l.db.Querier(ctx).QueryRowContext(ctx, `SELECT (SELECT min(seq) FROM audit_leaves WHERE event_id = $1)
		WHERE EXISTS (SELECT FROM audit_leaves WHERE event_id = $1) OR EXISTS (SELECT FROM audit_events WHERE id = $1)`,
		eventID).Scan(&index)
	if err != nil {
		return 0, translate(err)
	}
	if index == nil {
		return 0, ErrNotSealed
	}
	return *index, nil
}

// at returns the hashes of the newest tree, for proofs about the tree of this size, or about itself where that is 0.
func (l *Log) at(ctx context.Context, param string, size int64) (int64, tlog.HashReader, error) {
	head, err := l.head(ctx)
	if err != nil {
		return 0, nil, err
	}
	if size == 0 {
		size = head.size
	}
	if size < 1 || size > head.size {
		return 0, nil, treeSize(param)
	}
	return size, newTiles(ctx, l.db.Querier(ctx)).reader(head.size, head.root), nil
}

func treeSize(param string) error {
	return ErrTreeSize.With(errs.Field{Param: param, Code: ErrTreeSize.Code, Message: "There is no such proof for this size."})
}

// damaged tells a tree that is not what was signed from a database that does not answer.
func damaged(err error) error {
	if errs.KindOf(err) != errs.Internal {
		return err
	}
	return ErrTampered.Wrap(err)
}

package auditlog

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/ids"
)

// maxProblems bounds how many problems a report holds; the rest are counted.
const maxProblems = 1000

// VerifyOptions say what else to hold the log against, and whom to tell how far it is.
type VerifyOptions struct {
	Checkpoints []string                // signed notes, kept outside the log's reach; without one, a cut-off end goes unnoticed
	Progress    func(done, total int64) // called after each batch with numbers of events; may be nil
}

// Report is what a verification found.
type Report struct {
	Checkpoint Checkpoint // up to which the log was verified; zero for a log without seals
	Batches    int64
	Expired    int64 // events dropped by retention: only their hashes were verified
	Erased     int64 // events whose origin has been erased
	Pending    int64 // events that are not sealed yet, and so not verified
	Problems   []Problem
	Omitted    int // problems beyond those listed
}

// Intact reports whether the log is what was sealed.
func (r *Report) Intact() bool { return len(r.Problems) == 0 }

// Finding is a kind of problem.
type Finding string

// The findings.
const (
	Edited         Finding = "edited"          // an event is not what was sealed
	DeletedEvent   Finding = "deleted"         // a sealed event is gone, and not by retention
	Inserted       Finding = "inserted"        // an event stands among those of a batch and was not sealed with it
	Swapped        Finding = "swapped"         // a sealed event stands in another's place
	Backdated      Finding = "backdated"       // an event claims to be older than the order of transactions allows
	OriginEdited   Finding = "origin_edited"   // an IP or user agent is not what was recorded
	Truncated      Finding = "truncated"       // the log is shorter than it has been
	SealDamaged    Finding = "seal_damaged"    // a seal is missing, or was not signed with a known key as it stands
	TreeDamaged    Finding = "tree_damaged"    // a stored hash is wrong, although the events are right
	RootMismatch   Finding = "root_mismatch"   // events and stored hashes agree with each other, but not with the checkpoint
	HistoryChanged Finding = "history_changed" // the log contradicts a checkpoint that was kept
	RetentionWrong Finding = "retention_wrong" // other events are gone than retention says it dropped
)

// Problem is one thing that is wrong, and where.
type Problem struct {
	Finding Finding
	Batch   int64     // 0: of the log as a whole
	Seq     int64     // the leaf, from 0; -1 where there is none
	EventID uuid.UUID // zero where there is none
	Detail  string
}

// String describes the problem in a line.
func (p Problem) String() string {
	var b strings.Builder
	if p.Batch > 0 {
		fmt.Fprintf(&b, "batch %d: ", p.Batch)
	}
	b.WriteString(string(p.Finding))
	if p.EventID != uuid.Nil {
		b.WriteString(": event " + ids.Format(IDPrefix, p.EventID))
	}
	if p.Seq >= 0 {
		fmt.Fprintf(&b, " (leaf %d)", p.Seq)
	}
	return b.String() + ": " + p.Detail
}

// verification is one run of Verify.
type verification struct {
	*Log
	report     Report
	remembered map[int64][]tlog.Hash // roots by size, from checkpoints that were kept
	retention  retention
	tree       frontier
	upper      []upperTile // those that are growing, by level
	lost       bool        // a root did not match: those after it cannot
	newest     time.Time
}

// Verify audits the whole log again: it computes every leaf from its event, every root from the leaves, and holds the
// roots against the signed checkpoints. Memory does not grow with the log. It may run beside writers and the sealer; what
// is sealed after it has begun is left to the next run.
//
// Tampering is reported, not returned as an error. Errors: those of reading; a retention run that came between.
func (l *Log) Verify(ctx context.Context, opts VerifyOptions) (Report, error) {
	v := &verification{Log: l, remembered: map[int64][]tlog.Hash{}}
	head, err := v.begin(ctx, opts.Checkpoints)
	if err != nil {
		return Report{}, err
	}
	previous := genesis
	for previous.size < head.size {
		next, err := l.sealAfter(ctx, previous, head)
		if err != nil {
			return Report{}, err
		}
		if err := v.batch(ctx, previous, next); err != nil {
			return Report{}, err
		}
		v.report.Batches++
		previous = next
		if opts.Progress != nil {
			opts.Progress(next.size, head.size)
		}
	}
	return v.finish(ctx, head)
}

// begin reads up to where the log is to be verified, and against what.
func (v *verification) begin(ctx context.Context, checkpoints []string) (seal, error) {
	head, err := v.latest(ctx)
	if err != nil {
		return seal{}, err
	}
	if v.retention, err = v.retained(ctx); err != nil {
		return seal{}, err
	}
	v.tree.wanted = map[int64]bool{}
	for _, signed := range checkpoints {
		c, err := v.keys.open(signed)
		switch {
		case err != nil:
			v.problem(Problem{Finding: HistoryChanged, Seq: -1, Detail: "a checkpoint that was kept cannot be read: " + err.Error()})
		case c.Size > head.size:
			v.problem(Problem{
				Finding: Truncated, Seq: -1,
				Detail: fmt.Sprintf("a checkpoint was kept of %d events, and %d are left", c.Size, head.size),
			})
		case c.Size > 0:
			v.remembered[c.Size] = append(v.remembered[c.Size], c.Root)
			v.tree.wanted[c.Size] = true
		}
	}
	return head, nil
}

// sealAfter returns the first seal that goes beyond previous, at most head.
func (l *Log) sealAfter(ctx context.Context, previous, head seal) (seal, error) {
	s, err := scanSeal(l.db.Querier(ctx).QueryRowContext(ctx, `SELECT `+sealColumns+` FROM audit_seals
		WHERE batch > $1 AND size > $2 AND size <= $3 ORDER BY batch LIMIT 1`, previous.batch, previous.size, head.size))
	return s, db.Translate(err, nil)
}

// finish holds what was found against the whole.
func (v *verification) finish(ctx context.Context, head seal) (Report, error) {
	after, err := v.retained(ctx)
	if err != nil {
		return Report{}, err
	}
	if after != v.retention {
		return Report{}, fmt.Errorf("retention dropped events during the verification; run it again")
	}
	if v.report.Expired != v.retention.Total {
		v.problem(Problem{Finding: RetentionWrong, Seq: -1, Detail: fmt.Sprintf(
			"retention says it dropped %d events, and %d are gone", v.retention.Total, v.report.Expired)})
	}
	for _, tile := range v.upper {
		if err := v.compareTile(ctx, tile); err != nil {
			return Report{}, err
		}
	}
	if err := v.checkEnd(ctx); err != nil {
		return Report{}, err
	}
	if head.size > 0 {
		v.report.Checkpoint = Checkpoint{Origin: v.keys.Origin(), Size: head.size, Root: head.root, Note: head.checkpoint}
	}
	err = v.db.Querier(ctx).QueryRowContext(ctx, `SELECT count(*) FROM audit_events WHERE (txid, id) > ($1::text::xid8, $2)`,
		head.lastTxid, head.lastID).Scan(&v.report.Pending)
	return v.report, db.Translate(err, nil)
}

// checkEnd reports leaves beyond the last seal: then that seal has been cut off.
func (v *verification) checkEnd(ctx context.Context) error {
	var leaves, size int64
	err := v.db.Querier(ctx).QueryRowContext(ctx, `SELECT (SELECT coalesce(max(seq) + 1, 0) FROM audit_leaves),
		(SELECT coalesce(max(size), 0) FROM audit_seals)`).Scan(&leaves, &size)
	if err != nil {
		return db.Translate(err, nil)
	}
	if leaves > size {
		v.problem(Problem{Finding: Truncated, Seq: size, Detail: fmt.Sprintf("%d leaves follow the last seal", leaves-size)})
	}
	return nil
}

// grown takes over a longer tree, and compares it with what was kept and what is stored of it.
func (v *verification) grown(ctx context.Context, batch int64, tree frontier) error {
	for size, root := range tree.noted {
		for _, kept := range v.remembered[size] {
			if kept != root {
				v.problem(Problem{
					Finding: HistoryChanged, Batch: batch, Seq: -1,
					Detail: fmt.Sprintf("the first %d events are not those of a checkpoint that was kept", size),
				})
			}
		}
	}
	for _, u := range tree.upper {
		for len(v.upper) <= u.level {
			v.upper = append(v.upper, upperTile{level: len(v.upper)})
		}
		tile := &v.upper[u.level]
		tile.data = append(tile.data, u.hash[:]...)
		if len(tile.data) == tlog.HashSize<<tileHeight {
			if err := v.compareTile(ctx, *tile); err != nil {
				return err
			}
			*tile = upperTile{level: u.level, n: tile.n + 1}
		}
	}
	v.tree = tree
	return nil
}

// upperTile is a tile above the leaves as it should be.
type upperTile struct {
	level int
	n     int64
	data  []byte
}

// compareTile holds the stored tile against what it should be.
func (v *verification) compareTile(ctx context.Context, want upperTile) error {
	if len(want.data) == 0 || v.lost {
		return nil
	}
	var stored []byte
	err := v.db.Querier(ctx).QueryRowContext(ctx,
		`SELECT data FROM audit_tiles WHERE level = $1 AND n = $2`, want.level, want.n).Scan(&stored)
	if err != nil && !db.IsNoRows(err) {
		return db.Translate(err, nil)
	}
	if !bytes.HasPrefix(stored, want.data) {
		v.problem(Problem{Finding: TreeDamaged, Seq: -1, Detail: fmt.Sprintf("tile %d of level %d is wrong", want.n, want.level)})
	}
	return nil
}

func (v *verification) problem(p Problem) {
	if len(v.report.Problems) == maxProblems {
		v.report.Omitted++
		return
	}
	v.report.Problems = append(v.report.Problems, p)
}

// retention is what the newest event of retention says about all there have been.
type retention struct {
	Before time.Time `json:"before"`       // older events are gone
	Total  int64     `json:"events_total"` // how many they were
}

// retained returns what retention has dropped so far.
func (l *Log) retained(ctx context.Context) (retention, error) {
	var metadata []byte
	var r retention
	err := l.db.Querier(ctx).QueryRowContext(ctx, `SELECT metadata FROM audit_events
		WHERE action = $1 AND actor_type = $2 AND recorded_by = '' ORDER BY occurred_at DESC, id DESC LIMIT 1`,
		actionDropped, System).Scan(&metadata)
	if db.IsNoRows(err) {
		return r, nil
	}
	if err != nil {
		return r, db.Translate(err, nil)
	}
	if err := json.Unmarshal(metadata, &r); err != nil {
		return r, fmt.Errorf("metadata of the last event %s: %w", actionDropped, err)
	}
	return r, nil
}

//go:build unix

package test

import (
	"encoding/binary"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

// sealTimeout is how long an event may take to be sealed, on a busy machine.
const sealTimeout = 20 * time.Second

// auditLog is a server's audit log as an auditor sees it, who believes nothing but the key learnt first.
type auditLog struct {
	t        *testing.T
	client   *webtest.Client
	verifier note.Verifier
}

// checkpoint is a tree that the log has signed.
type checkpoint struct{ tlog.Tree }

type reference struct{ Type, ID string }

type auditEvent struct {
	ID         string
	OccurredAt time.Time `json:"occurred_at"`
	Action     string
	Actor      reference
	Target     reference
	IP         string
	UserAgent  string `json:"user_agent"`
	Metadata   json.RawMessage
}

// auditLog waits for a first checkpoint and learns the log's key.
func (s *server) auditLog(t *testing.T) *auditLog {
	t.Helper()
	var answer struct {
		PublicKey string `json:"public_key"`
	}
	for deadline := time.Now().Add(sealTimeout); ; time.Sleep(20 * time.Millisecond) {
		res := s.root.Do("GET", "/v1/audit-log/checkpoint", nil)
		if res.Status == http.StatusOK {
			res.JSON(&answer)
			break
		}
		res.WantProblem(http.StatusNotFound, "audit_checkpoint_not_found")
		if time.Now().After(deadline) {
			t.Fatalf("no checkpoint after %s", sealTimeout)
		}
	}
	verifier, err := note.NewVerifier(answer.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return &auditLog{t: t, client: s.root, verifier: verifier}
}

// checkpoint returns the newest, with its signature verified.
func (l *auditLog) checkpoint() checkpoint {
	l.t.Helper()
	var answer struct {
		Size       int64
		RootHash   string `json:"root_hash"`
		Checkpoint string
	}
	l.client.Do("GET", "/v1/audit-log/checkpoint", nil).Want(http.StatusOK).JSON(&answer)
	signed, err := note.Open([]byte(answer.Checkpoint), note.VerifierList(l.verifier))
	if err != nil {
		l.t.Fatal(err)
	}
	lines := strings.Split(signed.Text, "\n") // origin, size, root
	if len(lines) < 3 || lines[1] != strconv.FormatInt(answer.Size, 10) || lines[2] != answer.RootHash {
		l.t.Fatalf("the checkpoint says %+v and signs %q", answer, lines)
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		l.t.Fatal(err)
	}
	return checkpoint{tlog.Tree{N: answer.Size, Hash: root}}
}

// awaitSealed returns a checkpoint of at least so many events.
func (l *auditLog) awaitSealed(events int) checkpoint {
	l.t.Helper()
	for deadline := time.Now().Add(sealTimeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if c := l.checkpoint(); c.N >= int64(events) {
			return c
		}
	}
	l.t.Fatalf("%d events are not sealed after %s", events, sealTimeout)
	return checkpoint{}
}

// events returns all events, newest first, over several pages.
func (l *auditLog) events() []auditEvent {
	l.t.Helper()
	return l.list(url.Values{"limit": {"4"}})
}

// eventsOf returns the events whose actor or target, as filter says, has this id.
func (l *auditLog) eventsOf(filter, id string) []auditEvent {
	l.t.Helper()
	return l.list(url.Values{filter: {id}})
}

func (l *auditLog) list(query url.Values) []auditEvent {
	l.t.Helper()
	var all []auditEvent
	for {
		var page struct {
			Events     []auditEvent
			NextCursor *string `json:"next_cursor"`
		}
		l.client.Do("GET", "/v1/audit-events?"+query.Encode(), nil).Want(http.StatusOK).JSON(&page)
		all = append(all, page.Events...)
		if page.NextCursor == nil {
			return all
		}
		query.Set("cursor", *page.NextCursor)
	}
}

// wantConsistent proves that the log only grew from one checkpoint to the other.
func (l *auditLog) wantConsistent(from, to checkpoint) {
	l.t.Helper()
	var answer struct{ Hashes []tlog.Hash }
	path := "/v1/audit-log/consistency?from=" + strconv.FormatInt(from.N, 10) + "&to=" + strconv.FormatInt(to.N, 10)
	l.client.Do("GET", path, nil).Want(http.StatusOK).JSON(&answer)
	if err := tlog.CheckTree(answer.Hashes, to.N, to.Hash, from.N, from.Hash); err != nil {
		l.t.Errorf("from %d to %d events: %v", from.N, to.N, err)
	}
}

// wantIncluded proves that the event, as it was read, is in the tree that was signed.
func (l *auditLog) wantIncluded(e auditEvent, in checkpoint) {
	l.t.Helper()
	var proof struct {
		LeafIndex int64 `json:"leaf_index"`
		Leaf      []byte
		Hashes    []tlog.Hash
	}
	path := "/v1/audit-log/proof?event=" + e.ID + "&size=" + strconv.FormatInt(in.N, 10)
	l.client.Do("GET", path, nil).Want(http.StatusOK).JSON(&proof)
	if err := tlog.CheckRecord(proof.Hashes, in.N, in.Hash, proof.LeafIndex, tlog.RecordHash(proof.Leaf)); err != nil {
		l.t.Errorf("%s: %v", e.ID, err)
	}
	forged := append([]byte("x"), proof.Leaf...)
	if tlog.CheckRecord(proof.Hashes, in.N, in.Hash, proof.LeafIndex, tlog.RecordHash(forged)) == nil {
		l.t.Errorf("%s: the proof holds for anything", e.ID)
	}
	id, err := ids.Parse("evt", e.ID)
	if err != nil {
		l.t.Fatal(err)
	}
	m := members(l.t, proof.Leaf)
	said := []string{m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[10]} // the others are of the request
	shown := []string{
		id.String(), e.OccurredAt.UTC().Format("2006-01-02T15:04:05.000000Z"), e.Action, e.Actor.Type, e.Actor.ID, e.Target.Type,
		e.Target.ID, string(e.Metadata),
	}
	for i := range shown {
		if said[i] != shown[i] {
			l.t.Errorf("%s: the log has %q where the API shows %q", e.ID, said[i], shown[i])
		}
	}
}

// members takes a leaf apart, as docs/audit.md describes it.
func members(t *testing.T, leaf []byte) []string {
	t.Helper()
	_, rest, ok := strings.Cut(string(leaf), "\n") // the encoding's version
	var all []string
	for ok && rest != "" {
		if len(rest) < 4 {
			t.Fatalf("a leaf ends with %q", rest)
		}
		n := int(binary.BigEndian.Uint32([]byte(rest)))
		if rest = rest[4:]; len(rest) < n {
			t.Fatalf("a leaf ends with %q, %d bytes too early", rest, n-len(rest))
		}
		all, rest = append(all, rest[:n]), rest[n:]
	}
	if len(all) != 11 {
		t.Fatalf("a leaf has %d members: %q", len(all), leaf)
	}
	return all
}

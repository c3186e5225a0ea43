package auditlog

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint is what the log's key has signed: that the log's first Size events have this root hash. Whoever keeps one
// outside the log's reach can tell for ever whether those events were changed.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   tlog.Hash
	Note   string // the signed note, in the form of https://c2sp.org/tlog-checkpoint
}

// sign makes the checkpoint of a tree.
func (k *Keys) sign(size int64, root tlog.Hash) (Checkpoint, error) {
	text := fmt.Sprintf("%s\n%d\n%s\n", k.Origin(), size, base64.StdEncoding.EncodeToString(root[:]))
	signed, err := note.Sign(&note.Note{Text: text}, k.signer)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("sign checkpoint: %w", err)
	}
	return Checkpoint{Origin: k.Origin(), Size: size, Root: root, Note: string(signed)}, nil
}

// open verifies a signed note and returns what it says.
func (k *Keys) open(signed string) (Checkpoint, error) {
	n, err := note.Open([]byte(signed), k.verifiers)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	lines := strings.SplitN(n.Text, "\n", 4)
	if len(lines) < 4 || lines[0] != k.Origin() {
		return Checkpoint{}, fmt.Errorf("checkpoint: not one of the log %s", k.Origin())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 {
		return Checkpoint{}, fmt.Errorf("checkpoint: malformed size")
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: malformed root hash")
	}
	return Checkpoint{Origin: lines[0], Size: size, Root: root, Note: signed}, nil
}

// ParseCheckpoints returns the signed notes in data: one or many one after the other, as in the checkpoint file, or an
// answer of GET /v1/audit-log/checkpoint.
func ParseCheckpoints(data []byte) ([]string, error) {
	var answer struct {
		Checkpoint string `json:"checkpoint"`
	}
	if json.Unmarshal(data, &answer) == nil && answer.Checkpoint != "" {
		return []string{answer.Checkpoint}, nil
	}
	parts := strings.Split(strings.TrimSpace(string(data)), "\n\n") // of each note its text, and its signatures
	if len(parts)%2 != 0 {
		return nil, errors.New("not a checkpoint: a signed note has a text, an empty line, and signatures")
	}
	var notes []string
	for pair := range slices.Chunk(parts, 2) {
		notes = append(notes, strings.TrimLeft(pair[0], "\n")+"\n\n"+strings.TrimRight(pair[1], "\n")+"\n")
	}
	return notes, nil
}

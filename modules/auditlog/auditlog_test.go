package auditlog

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/errs"
)

// TestLeafEncoding pins the canonical form: were it to change, every sealed event would look edited.
func TestLeafEncoding(t *testing.T) {
	e := Event{
		ID: uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057"), OccurredAt: time.Date(2026, 1, 31, 23, 59, 59, 1000, time.UTC),
		Action: "user.updated", Actor: Ref{User, "user_1"}, Target: Ref{User, "user_é"}, RequestID: "r", RecordedBy: "",
		Metadata: json.RawMessage(`{"changed":["name"]}`), Origin: make([]byte, 32), IP: "not part of it",
	}
	want := "strata.audit.event/1\n" +
		"\x00\x00\x00\x2401890a5d-ac96-774b-bcce-b302099a8057" + "\x00\x00\x00\x1b2026-01-31T23:59:59.000001Z" +
		"\x00\x00\x00\x0cuser.updated" + "\x00\x00\x00\x04user" + "\x00\x00\x00\x06user_1" + "\x00\x00\x00\x04user" +
		"\x00\x00\x00\x07user_é" + "\x00\x00\x00\x20" + strings.Repeat("\x00", 32) + "\x00\x00\x00\x01r" + "\x00\x00\x00\x00" +
		"\x00\x00\x00\x14" + `{"changed":["name"]}`
	if got := string(e.Leaf()); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	sum := sha256.Sum256([]byte("\x00" + want))
	if got := e.leafHash(); hex.EncodeToString(got[:]) != hex.EncodeToString(sum[:]) {
		t.Errorf("leaf hash %x, want %x", got, sum)
	}
	elsewhere := e
	elsewhere.OccurredAt = e.OccurredAt.In(time.FixedZone("", 3600))
	if elsewhere.leafHash() != e.leafHash() {
		t.Error("the leaf depends on the time zone")
	}
}

func TestNormalize(t *testing.T) {
	valid := Event{Action: "a.b", Actor: Ref{Type: System}}
	tests := []struct {
		name   string
		change func(*Event)
		want   string // the pointer of the violation
	}{
		{"valid", func(*Event) {}, ""},
		{"longest action", func(e *Event) { e.Action = "a." + strings.Repeat("b", 98) }, ""},
		{"action too long", func(e *Event) { e.Action = "a." + strings.Repeat("b", 99) }, "/action"},
		{"action of one word", func(e *Event) { e.Action = "created" }, "/action"},
		{"action in capitals", func(e *Event) { e.Action = "User.created" }, "/action"},
		{"action with an empty part", func(e *Event) { e.Action = "user..created" }, "/action"},
		{"action with a line break", func(e *Event) { e.Action = "user.created\n" }, "/action"},
		{"no actor", func(e *Event) { e.Actor = Ref{} }, "/actor/type"},
		{"longest id", func(e *Event) { e.Actor.ID = strings.Repeat("é", 200) }, ""},
		{"id too long", func(e *Event) { e.Actor.ID = strings.Repeat("é", 201) }, "/actor/id"},
		{"id with a control character", func(e *Event) { e.Actor.ID = "a\x00" }, "/actor/id"},
		{"id that is not UTF-8", func(e *Event) { e.Actor.ID = "a\xff" }, "/actor/id"},
		{"target without type", func(e *Event) { e.Target.ID = "x" }, "/target/type"},
		{"ip with zone", func(e *Event) { e.IP = "fe80::1%eth0" }, ""},
		{"user agent with what nobody can read", func(e *Event) { e.UserAgent = "a\tb\x00\xff" }, ""},
		{"ip with port", func(e *Event) { e.IP = "10.0.0.1:80" }, "/ip"},
		{"user agent too long", func(e *Event) { e.UserAgent = strings.Repeat("x", 513) }, "/user_agent"},
		{"request id too long", func(e *Event) { e.RequestID = strings.Repeat("x", 129) }, "/request_id"},
		{"metadata null", func(e *Event) { e.Metadata = json.RawMessage("null") }, "/metadata"},
		{"metadata broken", func(e *Event) { e.Metadata = json.RawMessage(`{"a":}`) }, "/metadata"},
		{"metadata not UTF-8", func(e *Event) { e.Metadata = json.RawMessage("{\"a\":\"\xff\"}") }, "/metadata"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := valid
			test.change(&e)
			var got []string
			for _, f := range e.normalize("") {
				got = append(got, f.Pointer)
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("violations at %q, want %q", got, test.want)
			}
		})
	}
}

func TestRecordReportsEveryViolation(t *testing.T) {
	_, err := (&Service{}).Record(t.Context(), Event{Action: "a.b", Actor: Ref{Type: System}}, Event{}, Event{IP: "x"})
	var pointers []string
	for _, f := range errs.From(err).Fields {
		pointers = append(pointers, f.Pointer)
	}
	if got := strings.Join(pointers, " "); got != "/1/action /1/actor/type /2/action /2/actor/type /2/ip" {
		t.Errorf("violations at %s", got)
	}
}

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	first, err := OpenKeys(KeyConfig{StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenKeys(KeyConfig{StateDir: dir})
	if err != nil || again.Public() != first.Public() {
		t.Errorf("the second start has another key: %v", err)
	}
	signed, err := first.sign(1, emptyRoot)
	if err != nil {
		t.Fatal(err)
	}
	twice, err := OpenKeys(KeyConfig{StateDir: dir, Verifiers: []string{first.Public(), first.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := twice.open(signed.Note); err != nil {
		t.Errorf("with its own key among the verifiers: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, keyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info.Mode(), err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("files left behind: %v, %v", files, err)
	}
	if _, err := ReadKeys(KeyConfig{StateDir: t.TempDir()}); err == nil {
		t.Error("keys to verify with came from nowhere")
	}
	for name, cfg := range map[string]KeyConfig{
		"key too short":   {SigningKey: "c2hvcnQ="},
		"key not base64":  {SigningKey: "!"},
		"origin":          {StateDir: dir, Origin: "a b"},
		"verifier":        {StateDir: dir, Verifiers: []string{"x"}},
		"state directory": {StateDir: filepath.Join(dir, "missing")},
	} {
		if _, err := OpenKeys(cfg); err == nil {
			t.Errorf("%s: no error", name)
		} else if cfg.SigningKey != "" && strings.Contains(err.Error(), cfg.SigningKey) {
			t.Errorf("%s: the error shows the key", name)
		}
	}
}

func TestParseCheckpoints(t *testing.T) {
	const note = "log\n1\nAAAA\n\n— log sig\n"
	answer, err := json.Marshal(map[string]string{"checkpoint": note})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		data string
		want int
	}{
		"one": {note, 1}, "one and an empty line": {note + "\n", 1}, "three": {strings.Repeat(note+"\n", 3), 3},
		"an answer": {string(answer), 1}, "half": {"log\n1\nAAAA\n", -1}, "empty": {"", -1},
	} {
		notes, err := ParseCheckpoints([]byte(test.data))
		if (err != nil) != (test.want < 0) || err == nil && len(notes) != test.want {
			t.Errorf("%s: %q, %v", name, notes, err)
		}
		for _, n := range notes {
			if n != note {
				t.Errorf("%s: %q", name, n)
			}
		}
	}
}

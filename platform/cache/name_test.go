package cache

import (
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// TestIDs finds each text in its ID again, and one ID for each text, however it was made.
func TestIDs(t *testing.T) {
	id, sum := uuid.New(), sha256.Sum256([]byte("token"))
	digits := Digest(sum).String()
	for text, want := range map[string]ID{id.String(): UUID(id), digits: Digest(sum)} {
		if got := Text(text); got != want || got.String() != text || len(got.packed) > 1+len(text)/2 {
			t.Errorf("%s: %q, whose text is %s", text, got.packed, got)
		}
	}
	if UUID(id).UUID() != id || Digest(sum).Digest() != sum {
		t.Error("an ID has forgotten what it was made of")
	}
	for _, text := range []string{
		"", "*", "all", "user_01h455vb4pex5vsknk084sn02q", strings.ToUpper(id.String()), "{" + id.String()[1:35] + "}",
		strings.ToUpper(digits), digits[:63] + "g", digits[:62], strings.Repeat("é", 18), strings.Repeat("x", 36), id.String() + ":1",
	} {
		if got := Text(text); got.packed != text || got.String() != text || got.UUID() != uuid.Nil || got.Digest() != [32]byte{} {
			t.Errorf("%q: %q, whose text is %q", text, got.packed, got)
		}
	}
	for _, key := range []string{"user:" + id.String(), "ses:" + digits, "prefdefs:all", "subject:a:b", "user:*", "odd"} {
		if got := parseName(key); strings.TrimSuffix(got.String(), ":") != key {
			t.Errorf("%q has become %q", key, got)
		}
	}
}

// TestGroupsStayWhatTheyAre: processes of two versions that group an entity differently miss each other's changes.
func TestGroupsStayWhatTheyAre(t *testing.T) {
	s := &shared{groups: 16}
	for key, want := range map[string]int{
		"user:01a20b57-8cc6-7b6a-86b3-00561bd1d53c":                            1,
		"ses:30f1a656cc6df2898331615719fe75cd182491f0eea8e2bbef061b8b755dde48": 10,
		"prefdefs:all": 7,
	} {
		if got := s.group(parseName(key)); got != want {
			t.Errorf("%s is in group %d, was in %d", key, got, want)
		}
	}
}

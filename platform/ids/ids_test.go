package ids

import (
	"errors"
	"testing"

	"github.com/google/uuid"
)

func TestFormatAndParse(t *testing.T) {
	id := New()
	if id.Version() != 7 {
		t.Errorf("version %d", id.Version())
	}
	if got, err := Parse("user", Format("user", id)); err != nil || got != id {
		t.Errorf("round trip: %v, %v", got, err)
	}
	// The specification's own example.
	example := uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057")
	if got := Format("prefix", example); got != "prefix_01h455vb4pex5vsknk084sn02q" {
		t.Errorf("formatted %s", got)
	}
	for _, s := range []string{
		"", "user", "user_", "ses_01h455vb4pex5vsknk084sn02q", "01h455vb4pex5vsknk084sn02q", "user_01h455vb4pex5vsknk084sn02",
		"user_81h455vb4pex5vsknk084sn02q", "user_01H455VB4PEX5VSKNK084SN02Q", "user_01h455vb4pex5vsknk084sn02q ", "USER_01h455vb4pex5vsknk084sn02q",
	} {
		if _, err := Parse("user", s); !errors.Is(err, ErrMalformed) {
			t.Errorf("Parse(%q): %v", s, err)
		}
	}
}

// FuzzParse accepts nothing but what Format gives.
func FuzzParse(f *testing.F) {
	f.Add("user_01h455vb4pex5vsknk084sn02q")
	f.Add("user_7zzzzzzzzzzzzzzzzzzzzzzzzz")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := Parse("user", s); err == nil && Format("user", id) != s {
			t.Errorf("%q was taken for %s", s, Format("user", id))
		}
	})
}

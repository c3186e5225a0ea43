package rollout

import (
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Stage is how far a module has climbed.
type Stage string

// The stages, in order. Only adjacent ones are reached from each other.
const (
	Direct     Stage = "direct"     // hand-written SQL answers
	Shadow     Stage = "shadow"     // it still does, and a part of the reads runs again on the repository to be compared
	Repository Stage = "repository" // the repository answers for a part of the keys
	Cached     Stage = "cached"     // the cache answers for a part of the keys, the repository for the rest
)

// Stages lists the stages in order.
var Stages = []Stage{Direct, Shadow, Repository, Cached}

// ParseStage reads a stage's name.
func ParseStage(s string) (Stage, error) {
	if i := slices.Index(Stages, Stage(s)); i >= 0 {
		return Stages[i], nil
	}
	return "", fmt.Errorf("must be one of %v", Stages)
}

func (s Stage) index() int { return slices.Index(Stages, s) }

// A path is a rung that answers.
type path uint8

const (
	direct path = iota
	repository
	cached
	paths // their number
)

var pathNames = [paths]string{"direct", "repository", "cached"}

// paths returns who answers for keys outside of the cohort, and who for those in it. In shadow that one only repeats
// reads.
func (s Stage) paths() (outside, inside path) {
	switch s {
	case Shadow, Repository:
		return direct, repository
	case Cached:
		return repository, cached
	default:
		return direct, direct
	}
}

// Whole is the reach of a stage that applies to every key.
const Whole = 10_000

// Setting is a stage and its reach.
type Setting struct {
	Stage Stage
	Reach int // of the stage among the keys, in basis points: 0 to Whole
}

// NewSetting returns the setting of a stage at a percentage, of which two decimals count.
func NewSetting(stage Stage, percent float64) Setting {
	return Setting{stage, int(math.Round(percent * Whole / 100))}
}

// Percent returns the reach in percent.
func (s Setting) Percent() float64 { return float64(s.Reach) * 100 / Whole }

// String returns the setting as logs show it: "repository at 5 %".
func (s Setting) String() string { return fmt.Sprintf("%s at %v %%", s.Stage, s.Percent()) }

func (s Setting) valid() bool { return s.Stage.index() >= 0 && s.Reach >= 0 && s.Reach <= Whole }

// skips reports whether a move to other would take keys past a rung that does not answer for them yet.
func (s Setting) skips(other Setting) bool {
	return s.Stage == Repository && s.Reach < Whole && other.Stage == Cached
}

// adjacent reports whether other is reached from s in one move.
func (s Setting) adjacent(other Setting) bool {
	step := other.Stage.index() - s.Stage.index()
	return -1 <= step && step <= 1
}

// below reports whether s is a step back from other.
func (s Setting) below(other Setting) bool {
	if s.Stage != other.Stage {
		return s.Stage.index() < other.Stage.index()
	}
	return s.Reach < other.Reach
}

// bucket returns the place of a key among Whole, the same in every process and at every stage, and another with another
// salt.
func bucket(salt uint64, key string) int {
	h := xxhash.Sum64String(key) ^ salt
	h = (h ^ h>>33) * 0xff51afd7ed558ccd // the finalizer of MurmurHash3, so that the salt reaches every bit
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	place, _ := bits.Mul64(h^h>>33, Whole)
	return int(place) //nolint:gosec // below Whole
}

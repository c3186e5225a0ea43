package users

import (
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/trustelem/zxcvbn"
	"github.com/trustelem/zxcvbn/frequency"

	"github.com/strata-accounts/strata/platform/errs"
)

// Limits on a password, in characters, taken verbatim: nothing is trimmed or normalised.
const (
	MinPassword = 8
	MaxPassword = 256
)

// ours is the prefix of the hashes that this server makes: argon2id with the parameters that OWASP's password storage
// cheat sheet gives for 19 MiB. A hash without it is replaced at the next sign-in.
const ours = "$argon2id$v=19$m=19456,t=2,p=1$"

// minGuesses is the number of guesses under which a password counts as common: it is, or is made from, one of the ten
// thousand that are tried first (zxcvbn's estimate: Wheeler, USENIX Security 2016).
const minGuesses = 1e4

// estimated is how much of a password is given to zxcvbn, whose time grows with the square of the length.
const estimated = 64

// checkPassword reports what is wrong with a password, given the account's own words, which it must not be made of.
func checkPassword(password string, words ...string) []errs.Field {
	switch n := utf8.RuneCountInString(password); {
	case n < MinPassword:
		return []errs.Field{{Pointer: "/password", Code: "too_short", Message: "Must have at least 8 characters."}}
	case n > MaxPassword:
		return []errs.Field{{Pointer: "/password", Code: "too_long", Message: "Must have at most 256 characters."}}
	}
	head := password
	if len(head) > estimated {
		head = strings.ToValidUTF8(head[:estimated], "")
	}
	if n := zxcvbn.PasswordStrength(head, words).Guesses; n > 0 && n < minGuesses { // 0: a script that it cannot judge
		return []errs.Field{{Pointer: "/password", Code: "too_common", Message: "Is too easy to guess."}}
	}
	return nil
}

// zxcvbn has made its dictionaries of these lists by now, and needs a megabyte and a half of them no more.
func init() { frequency.FrequencyLists = nil }

// outdated reports whether a hash should be replaced by one of ours.
func outdated(hash string) bool { return !strings.HasPrefix(hash, ours) }

// acceptable reports whether a foreign hash can be verified here at a bounded cost.
func (s *scheme) acceptable(hash string) bool {
	if len(hash) > 1024 || !affordable(hash) {
		return false
	}
	_, err := s.decode(hash)
	return err == nil
}

var (
	parameter    = regexp.MustCompile(`[$,](m|t|p|ln|r)=(\d+)`)
	costBcrypt   = regexp.MustCompile(`^\$2[abxy]?\$(\d\d)\$|^\$bcrypt-sha256\$.*[,$]r=(\d+)`)
	costPBKDF2   = regexp.MustCompile(`^\$pbkdf2[^$]*\$(?:i=)?(\d+)`)
	isScrypt     = regexp.MustCompile(`^\$scrypt\$`)
	maxMemoryMiB = 256
)

// affordable reports whether verifying a hash costs no more than about a second and 256 MiB: an import must not be able
// to plant a sign-in that stops the server.
func affordable(hash string) bool {
	if m := costBcrypt.FindStringSubmatch(hash); m != nil {
		return atMost(m[1]+m[2], 14)
	}
	if m := costPBKDF2.FindStringSubmatch(hash); m != nil {
		return atMost(m[1], 2_000_000)
	}
	p := map[string]int{}
	for _, m := range parameter.FindAllStringSubmatch(hash, -1) {
		n, err := strconv.Atoi(m[2])
		if err != nil || n > 1<<20 {
			return false
		}
		p[m[1]] = n
	}
	if isScrypt.MatchString(hash) {
		return p["ln"] <= 20 && p["r"] <= 32 && p["p"] <= 16 && 128*p["r"]<<p["ln"] <= maxMemoryMiB<<20
	}
	return p["m"] <= maxMemoryMiB<<10 && p["t"] <= 16 && p["p"] <= 16 && p["m"]*max(p["t"], 1) <= 1<<20
}

func atMost(digits string, limit int) bool {
	n, err := strconv.Atoi(digits)
	return err == nil && n <= limit
}

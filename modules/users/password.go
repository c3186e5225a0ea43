package users

import (
	"context"
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-crypt/crypt"
	"github.com/go-crypt/crypt/algorithm"
	"github.com/go-crypt/crypt/algorithm/argon2"
	"github.com/go-crypt/crypt/algorithm/bcrypt"
	"github.com/go-crypt/crypt/algorithm/pbkdf2"
	"github.com/go-crypt/crypt/algorithm/scrypt"
	"github.com/trustelem/zxcvbn"

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

// hasher makes and verifies password hashes, at most so many at a time: argon2 is made to keep a core busy, and the
// cores that it leaves are those that answer everybody else.
type hasher struct {
	slots chan struct{}
	wait  time.Duration
	argon *argon2.Hasher
	known *crypt.Decoder
	dummy string
}

// newHasher returns a hasher that works on n passwords at a time, n <= 0 meaning one fewer than the cores, and at least
// one. A call waits its turn for so long at most.
func newHasher(n int, wait time.Duration) *hasher {
	if n <= 0 {
		n = max(1, runtime.GOMAXPROCS(0)-1)
	}
	argon, err := argon2.New(argon2.WithVariantID(), argon2.WithM(19*1024), argon2.WithT(2), argon2.WithP(1),
		argon2.WithSaltLength(16), argon2.WithKeyLength(32))
	if err != nil {
		panic(err) // constants that the library refuses
	}
	known := crypt.NewDecoder()
	for _, register := range []func(algorithm.DecoderRegister) error{
		argon2.RegisterDecoderArgon2id, bcrypt.RegisterDecoder, scrypt.RegisterDecoder, pbkdf2.RegisterDecoder,
	} {
		if err := register(known); err != nil {
			panic(err) // a prefix registered twice
		}
	}
	h := &hasher{slots: make(chan struct{}, n), wait: wait, argon: argon, known: known}
	digest, err := argon.Hash("a password that no account has")
	if err != nil {
		panic(err) // no randomness
	}
	h.dummy = digest.Encode()
	return h
}

// hash returns the PHC string of a password. Errors: errs.ErrBusy, errs.ErrCanceled.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if err := h.acquire(ctx); err != nil {
		return "", err
	}
	defer h.release()
	digest, err := h.argon.Hash(password)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return digest.Encode(), nil
}

// verify reports whether password has this hash. An empty hash takes the time of one of ours and is nobody's.
// Errors: errs.ErrBusy, errs.ErrCanceled, or a stored hash that cannot be read.
func (h *hasher) verify(ctx context.Context, password, hash string) (bool, error) {
	exists := hash != ""
	if !exists {
		hash = h.dummy
	}
	digest, err := h.decode(hash)
	if err != nil {
		return false, fmt.Errorf("stored password hash: %w", err)
	}
	if err := h.acquire(ctx); err != nil {
		return false, err
	}
	defer h.release()
	return digest.Match(password) && exists, nil
}

func (h *hasher) acquire(ctx context.Context) error {
	timer := time.NewTimer(h.wait)
	defer timer.Stop()
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-timer.C:
		return errs.ErrBusy
	case <-ctx.Done():
		return errs.ErrCanceled.Wrap(ctx.Err())
	}
}

func (h *hasher) release() { <-h.slots }

// outdated reports whether a hash should be replaced by one of ours.
func outdated(hash string) bool { return !strings.HasPrefix(hash, ours) }

// acceptable reports whether a foreign hash can be verified here at a bounded cost.
func (h *hasher) acceptable(hash string) bool {
	if len(hash) > 1024 || !affordable(hash) {
		return false
	}
	_, err := h.decode(hash)
	return err == nil
}

// decode reads a hash. PBKDF2 is also understood in the PHC specification's own form, $pbkdf2-sha256$i=N[,l=L]$salt$hash;
// the library knows the older one of passlib.
func (h *hasher) decode(hash string) (algorithm.Digest, error) {
	if m := phcPBKDF2.FindStringSubmatch(hash); m != nil {
		hash = m[1] + m[2] + strings.ReplaceAll(m[3], "+", ".")
	}
	return h.known.Decode(hash)
}

var (
	phcPBKDF2    = regexp.MustCompile(`^(\$pbkdf2(?:-sha(?:1|256|512))?\$)i=(\d+)(?:,l=\d+)?(\$.*)$`)
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

package users

import (
	"crypto/rand"
	"encoding/base64"
	"regexp"
	"strings"

	"github.com/go-crypt/crypt"
	"github.com/go-crypt/crypt/algorithm"
	"github.com/go-crypt/crypt/algorithm/argon2"
	"github.com/go-crypt/crypt/algorithm/bcrypt"
	"github.com/go-crypt/crypt/algorithm/pbkdf2"
	"github.com/go-crypt/crypt/algorithm/scrypt"
)

// A scheme makes hashes of one kind and verifies those of many.
type scheme struct {
	argon *argon2.Hasher
	known *crypt.Decoder
	dummy string // a hash like ours that no password has
}

func newScheme() *scheme {
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
	random := func(n int) string {
		b := make([]byte, n)
		_, _ = rand.Read(b) // never fails
		return base64.RawStdEncoding.EncodeToString(b)
	}
	return &scheme{argon: argon, known: known, dummy: ours + random(16) + "$" + random(32)}
}

// A Job is one password to be hashed, or, where there is a Hash, to be held against it.
type Job struct{ Password, Hash string }

// A Result is what came of a Job: the password's hash, or whether it has the one given.
type Result struct {
	Hash    string
	Matches bool
}

// Work does a job, in the form that net/rpc asks for. Errors: a hash that cannot be read.
func (s *scheme) Work(j Job, r *Result) error {
	if j.Hash == "" {
		digest, err := s.argon.Hash(j.Password)
		if err != nil {
			return err
		}
		r.Hash = digest.Encode()
		return nil
	}
	digest, err := s.decode(j.Hash)
	if err != nil {
		return err
	}
	r.Matches = digest.Match(j.Password)
	return nil
}

var phcPBKDF2 = regexp.MustCompile(`^(\$pbkdf2(?:-sha(?:1|256|512))?\$)i=(\d+)(?:,l=\d+)?(\$.*)$`)

// decode reads a hash. PBKDF2 is also understood in the PHC specification's own form, $pbkdf2-sha256$i=N[,l=L]$salt$hash;
// the library knows the older one of passlib.
func (s *scheme) decode(hash string) (algorithm.Digest, error) {
	if m := phcPBKDF2.FindStringSubmatch(hash); m != nil {
		hash = m[1] + m[2] + strings.ReplaceAll(m[3], "+", ".")
	}
	return s.known.Decode(hash)
}

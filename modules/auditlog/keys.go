package auditlog

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// DefaultOrigin names the log in its checkpoints.
const DefaultOrigin = "strata-audit"

// keyFile holds the generated signing key in the state directory.
const keyFile = "audit_signing.key"

// noteEd25519 is the algorithm byte of Ed25519 keys in the note format.
const noteEd25519 = 1

// KeyConfig says where the key that signs checkpoints comes from.
type KeyConfig struct {
	Origin     string   // the log's name in checkpoints, without spaces and plus signs; empty: DefaultOrigin
	SigningKey string   // base64 of a 32-byte Ed25519 seed (openssl rand -base64 32); empty: kept in StateDir
	StateDir   string   // where a key is generated on first use, readable by its owner alone
	Verifiers  []string // public keys (origin+hash+key) of earlier signing keys whose checkpoints are accepted too
}

// Keys signs checkpoints and verifies those of this log.
type Keys struct {
	signer    note.Signer
	verifiers note.Verifiers
	public    string
}

// Origin returns the log's name.
func (k *Keys) Origin() string { return k.signer.Name() }

// Public returns the key with which anyone can verify the log's checkpoints: origin+hash+key.
func (k *Keys) Public() string { return k.public }

// OpenKeys returns the configured keys, and generates a signing key where none is configured and none was generated
// before. Errors never contain key material.
func OpenKeys(cfg KeyConfig) (*Keys, error) {
	if cfg.Origin == "" {
		cfg.Origin = DefaultOrigin
	}
	encoded := cfg.SigningKey
	if encoded == "" {
		var err error
		if encoded, err = generatedKey(filepath.Join(cfg.StateDir, keyFile)); err != nil {
			return nil, fmt.Errorf("audit signing key: %w", err)
		}
	}
	seed, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, errors.New("auditlog.signing_key: must be the base64 of 32 bytes (openssl rand -base64 32)")
	}
	return newKeys(cfg.Origin, seed, cfg.Verifiers)
}

func newKeys(origin string, seed []byte, others []string) (*Keys, error) {
	key := ed25519.NewKeyFromSeed(seed)
	public, err := note.NewEd25519VerifierKey(origin, key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, fmt.Errorf("auditlog.origin: %w", err)
	}
	hash := strings.SplitN(public, "+", 3)[1]
	private := "PRIVATE+KEY+" + origin + "+" + hash + "+" + base64.StdEncoding.EncodeToString(append([]byte{noteEd25519}, seed...))
	signer, err := note.NewSigner(private)
	if err != nil {
		return nil, errors.New("auditlog.origin: must not be empty or contain spaces or plus signs")
	}
	var list []note.Verifier
	for _, v := range append([]string{public}, others...) {
		verifier, err := note.NewVerifier(v)
		if err != nil {
			return nil, fmt.Errorf("auditlog.verifiers: not a public key in the form origin+hash+key")
		}
		list = append(list, verifier)
	}
	return &Keys{signer: signer, verifiers: note.VerifierList(list...), public: public}, nil
}

// generatedKey reads the key file, or creates it. Of two processes that create it at once, one wins and both use its key.
func generatedKey(path string) (string, error) {
	content, err := os.ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return string(content), err
	}
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed)                                               // never fails (crypto/rand)
	draft, err := os.CreateTemp(filepath.Dir(path), keyFile+".*") // 0600
	if err != nil {
		return "", err
	}
	defer os.Remove(draft.Name())
	_, err = draft.WriteString(base64.StdEncoding.EncodeToString(seed) + "\n")
	if err = errors.Join(err, draft.Sync(), draft.Close()); err != nil {
		return "", err
	}
	if err := os.Link(draft.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) { // unlike rename, never replaces
		return "", err
	}
	content, err = os.ReadFile(path)
	return string(content), err
}

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
	"slices"
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
	origin    string
	public    string
	signer    note.Signer // nil where there is no signing key
	verifiers note.Verifiers
}

// Origin returns the log's name.
func (k *Keys) Origin() string { return k.origin }

// Public returns the key with which anyone can verify the log's checkpoints: origin+hash+key. It is empty where there is
// no signing key.
func (k *Keys) Public() string { return k.public }

// OpenKeys returns the configured keys, and generates a signing key where none is configured and none was generated
// before. Errors never contain key material.
func OpenKeys(cfg KeyConfig) (*Keys, error) {
	return openKeys(cfg, generatedKey)
}

// ReadKeys is OpenKeys for those who only verify: without a signing key the configured verifiers must do.
func ReadKeys(cfg KeyConfig) (*Keys, error) {
	return openKeys(cfg, func(path string) (string, error) {
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) && len(cfg.Verifiers) > 0 {
			err = nil
		}
		return string(content), err
	})
}

func openKeys(cfg KeyConfig, stored func(path string) (string, error)) (*Keys, error) {
	if cfg.Origin == "" {
		cfg.Origin = DefaultOrigin
	}
	encoded := cfg.SigningKey
	if encoded == "" {
		var err error
		if encoded, err = stored(filepath.Join(cfg.StateDir, keyFile)); err != nil {
			return nil, fmt.Errorf("audit signing key: %w", err)
		}
	}
	keys := &Keys{origin: cfg.Origin}
	known := slices.Clone(cfg.Verifiers)
	if encoded != "" {
		if err := keys.setSigner(encoded); err != nil {
			return nil, err
		}
		known = append(known, keys.public)
	}
	slices.Sort(known)
	known = slices.Compact(known) // a key that is given twice would be ambiguous
	list := make([]note.Verifier, len(known))
	for i, v := range known {
		var err error
		if list[i], err = note.NewVerifier(v); err != nil {
			return nil, errors.New("auditlog.verifiers: must be public keys in the form origin+hash+key")
		}
	}
	keys.verifiers = note.VerifierList(list...)
	return keys, nil
}

// setSigner takes a seed, in base64, into use.
func (k *Keys) setSigner(encoded string) error {
	seed, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil || len(seed) != ed25519.SeedSize {
		return errors.New("auditlog.signing_key: must be the base64 of 32 bytes (openssl rand -base64 32)")
	}
	public, _ := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	k.public, err = note.NewEd25519VerifierKey(k.origin, public)
	if err != nil {
		return fmt.Errorf("audit signing key: %w", err)
	}
	hash := strings.TrimPrefix(k.public, k.origin+"+")[:8]
	encoded = base64.StdEncoding.EncodeToString(append([]byte{noteEd25519}, seed...))
	k.signer, err = note.NewSigner("PRIVATE+KEY+" + k.origin + "+" + hash + "+" + encoded)
	if err != nil {
		return errors.New("auditlog.origin: must not contain spaces or plus signs")
	}
	return nil
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

package users

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/errs"
)

// MailedToken is a token for the application to mail: Strata sends no mail itself.
type MailedToken struct {
	Token     string // shown once; only its SHA-256 is kept
	ExpiresAt time.Time
}

// newToken returns 256 random bits in a form that survives a URL and a mail client, and their hash.
func newToken() (token string, hash []byte) {
	bits := make([]byte, 32)
	_, _ = rand.Read(bits) // never fails (crypto/rand)
	token = "vt_" + base64.RawURLEncoding.EncodeToString(bits)
	return token, hashToken(token)
}

func hashToken(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// RequestEmailVerification makes a token that proves, when it comes back, that the user reads the address.
// Errors: ErrNotFound, ErrDeleted.
func (s *Service) RequestEmailVerification(ctx context.Context, id uuid.UUID) (MailedToken, error) {
	u, err := s.repo.ByID(ctx, id)
	if err != nil {
		return MailedToken{}, err
	}
	if u.Status == Deleted {
		return MailedToken{}, ErrDeleted
	}
	return s.issue(ctx, u, EmailVerification)
}

// RequestPasswordReset makes a token with which a new password can be set. An address that nobody has is answered alike,
// with a token that never works.
func (s *Service) RequestPasswordReset(ctx context.Context, email string) (MailedToken, error) {
	u, err := s.repo.ByEmail(ctx, strings.TrimSpace(email))
	if errors.Is(err, ErrNotFound) || err == nil && u.Status == Deleted {
		token, _ := newToken()
		return MailedToken{Token: token, ExpiresAt: time.Now().UTC().Add(s.cfg.TokenLifetime).Truncate(time.Microsecond)}, nil
	}
	if err != nil {
		return MailedToken{}, err
	}
	return s.issue(ctx, u, PasswordReset)
}

func (s *Service) issue(ctx context.Context, u User, purpose Purpose) (MailedToken, error) {
	token, hash := newToken()
	mailed := MailedToken{Token: token}
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		var err error
		mailed.ExpiresAt, err = s.repo.CreateToken(ctx, Token{
			Hash: hash, UserID: u.ID, Purpose: purpose, Email: u.Email, ExpiresIn: s.cfg.TokenLifetime,
		})
		if err != nil {
			return err
		}
		return s.record(ctx, "user."+string(purpose)+"_requested", u.ID, nil)
	})
	return mailed, err
}

// ConfirmEmail takes back a verification token and notes that the address is verified. Errors: ErrTokenInvalid.
func (s *Service) ConfirmEmail(ctx context.Context, token string) (User, error) {
	var u User
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		t, err := s.repo.TakeToken(ctx, EmailVerification, hashToken(token))
		if err != nil {
			return err
		}
		u, err = s.repo.Update(ctx, t.UserID, func(u *User) error {
			if u.Email != t.Email || u.Status == Deleted {
				return ErrTokenInvalid
			}
			u.EmailVerified = true
			return nil
		})
		if err != nil {
			return err
		}
		return s.record(ctx, "user.email_verified", u.ID, nil)
	})
	return u, err
}

// ResetPassword takes back a reset token, sets the password and ends all of the user's sessions.
// Errors: ErrTokenInvalid, errs.ErrInvalid, errs.ErrBusy.
func (s *Service) ResetPassword(ctx context.Context, token, password string) error {
	if err := errs.Violated(checkPassword(password)); err != nil {
		return err
	}
	hash, err := s.hasher.hash(ctx, password) // before the transaction: a connection must not wait for a hash
	if err != nil {
		return err
	}
	return s.db.InTx(ctx, func(ctx context.Context) error {
		t, err := s.repo.TakeToken(ctx, PasswordReset, hashToken(token))
		if err != nil {
			return err
		}
		u, err := s.repo.ByID(ctx, t.UserID)
		if err != nil {
			return err
		}
		if u.Email != t.Email || u.Status == Deleted {
			return ErrTokenInvalid
		}
		if err := errs.Violated(checkPassword(password, u.Email, u.Name)); err != nil { // whose it is shows only now
			return err
		}
		if err := s.repo.DeleteTokens(ctx, u.ID); err != nil { // one reset voids the others
			return err
		}
		return s.setHash(ctx, u.ID, uuid.Nil, func(ctx context.Context) error { return s.repo.SetCredential(ctx, u.ID, hash) })
	})
}

// cleanupBatch bounds what one transaction of deleteExpiredTokens removes.
const cleanupBatch = 1000

// deleteExpiredTokens removes the tokens that have expired, batch by batch, and returns their number.
func (s *Service) deleteExpiredTokens(ctx context.Context) (int64, error) {
	return db.InBatches(func() (int64, error) { return s.repo.DeleteExpiredTokens(ctx, cleanupBatch) })
}

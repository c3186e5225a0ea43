package users

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/web"
)

// Service holds the rules of accounts. It opens the transactions, and records in each what it changed.
type Service struct {
	db       *db.DB
	repo     Repository
	audit    Auditor
	sessions SessionEnder
	erasers  []Eraser
	hasher   *hasher
	cfg      Config
}

func newService(deps Deps) *Service {
	return &Service{
		db: deps.DB, repo: deps.Repository, audit: deps.Auditor, sessions: deps.Sessions, erasers: deps.Erasers,
		hasher: newHasher(deps.Config.HashConcurrency, deps.Config.HashWait, deps.Hashing, deps.Log), cfg: deps.Config,
	}
}

// Guard decides on a user's current state whether a change may go on: If-Match.
type Guard func(User) error

// ByID returns a user, the soft-deleted too. Errors: ErrNotFound.
func (s *Service) ByID(ctx context.Context, id uuid.UUID) (User, error) {
	return s.repo.ByID(ctx, id)
}

// Hold keeps a user from being erased until the transaction that the context carries ends. Errors: ErrNotFound.
func (s *Service) Hold(ctx context.Context, id uuid.UUID) error {
	return s.repo.Hold(ctx, id)
}

// List returns a page of at most f.Limit users, newest first.
func (s *Service) List(ctx context.Context, f Filter) ([]User, error) {
	return s.repo.List(ctx, f)
}

// Create opens an account. Errors: errs.ErrInvalid, ErrEmailTaken, errs.ErrBusy when too many passwords wait to be hashed.
func (s *Service) Create(ctx context.Context, in NewUser) (User, error) {
	if err := in.Validate(); err != nil {
		return User{}, err
	}
	var hash string
	if in.Password != nil {
		var err error
		if hash, err = s.hasher.hash(ctx, *in.Password); err != nil {
			return User{}, err
		}
	}
	var u User
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		var err error
		u, err = s.repo.Create(ctx, User{ID: ids.New(), Email: in.Email, Name: in.Name, Status: Active, Metadata: in.Metadata})
		if err != nil {
			return err
		}
		if hash != "" {
			if err := s.repo.SetCredential(ctx, u.ID, hash); err != nil {
				return err
			}
		}
		return s.record(ctx, "user.created", u.ID, nil)
	})
	return u, err
}

// Patch is a merge patch (RFC 7396) on a user: nil leaves a member as it is.
type Patch struct {
	Email    *string
	Name     *string
	Status   *Status
	Metadata json.RawMessage // itself a merge patch on the metadata

	ClearMetadata bool // replaces the metadata by an empty object
}

// Validate holds what the patch names against the rules that need no user. Errors: errs.ErrInvalid.
func (p Patch) Validate() error {
	var fields []errs.Field
	if p.Email != nil {
		fields = append(fields, checkEmail(strings.TrimSpace(*p.Email))...)
	}
	if p.Name != nil {
		fields = append(fields, checkName(*p.Name)...)
	}
	if p.Metadata != nil {
		fields = append(fields, checkObject(p.Metadata)...) // before it is merged: the patch too must be one
	}
	return errs.Violated(fields)
}

func (p Patch) apply(u *User) error {
	if p.Email != nil {
		email := strings.TrimSpace(*p.Email)
		if email != u.Email {
			u.EmailVerified = false
		}
		u.Email = email
	}
	if p.Name != nil {
		u.Name = *p.Name
	}
	if p.Status != nil {
		if *p.Status != Active && *p.Status != Suspended {
			return errs.Violated([]errs.Field{{Pointer: "/status", Code: "enum", Message: "Must be active or suspended."}})
		}
		u.Status = *p.Status
	}
	if p.ClearMetadata {
		u.Metadata = json.RawMessage("{}")
	}
	if p.Metadata != nil {
		merged, err := web.MergePatch(u.Metadata, p.Metadata)
		if err != nil {
			return fmt.Errorf("merge metadata: %w", err)
		}
		u.Metadata = merged
	}
	return errs.Violated(validate(u.Email, u.Name, u.Metadata))
}

// Update changes a user. Suspending it ends its sessions; a new e-mail address is not verified.
//
// Errors: ErrNotFound, ErrDeleted, ErrEmailTaken, errs.ErrInvalid, and what guard returns.
func (s *Service) Update(ctx context.Context, id uuid.UUID, p Patch, guard Guard) (User, error) {
	if err := p.Validate(); err != nil {
		return User{}, err
	}
	var before, after User
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		var err error
		after, err = s.repo.Update(ctx, id, func(u *User) error {
			before = *u
			if err := guard(*u); err != nil {
				return err
			}
			if u.Status == Deleted {
				return ErrDeleted
			}
			return p.apply(u)
		})
		if err != nil {
			return err
		}
		return s.updated(ctx, before, after)
	})
	return after, err
}

// updated does what a change brings with it: sessions end, tokens for a former address are void, and the audit trail
// tells the members that changed.
func (s *Service) updated(ctx context.Context, before, after User) error {
	names := before.changed(after)
	if after.Status != before.Status {
		action := "user.reactivated"
		if after.Status == Suspended {
			action = "user.suspended"
			if err := s.sessions.EndAll(ctx, after.ID, uuid.Nil); err != nil {
				return err
			}
		}
		if err := s.record(ctx, action, after.ID, nil); err != nil {
			return err
		}
		names = slices.DeleteFunc(names, func(n string) bool { return n == "status" })
	}
	if after.Email != before.Email {
		if err := s.repo.DeleteTokens(ctx, after.ID); err != nil {
			return err
		}
	}
	if len(names) == 0 {
		return nil
	}
	return s.record(ctx, "user.updated", after.ID, map[string]any{"changed": names})
}

// Delete deletes a user softly: it keeps its e-mail address and may be restored, its sessions end. Deleting a deleted
// user changes nothing. Errors: ErrNotFound, and what guard returns.
func (s *Service) Delete(ctx context.Context, id uuid.UUID, guard Guard) error {
	return s.db.InTx(ctx, func(ctx context.Context) error {
		already := false
		_, err := s.repo.Update(ctx, id, func(u *User) error {
			if err := guard(*u); err != nil {
				return err
			}
			already = u.Status == Deleted
			u.Status = Deleted
			return nil
		})
		if err != nil || already {
			return err
		}
		if err := s.sessions.EndAll(ctx, id, uuid.Nil); err != nil {
			return err
		}
		if err := s.repo.DeleteTokens(ctx, id); err != nil {
			return err
		}
		return s.record(ctx, "user.deleted", id, nil)
	})
}

// Erase removes a user and all that the modules keep about it, for good; the audit trail keeps the id alone.
// Errors: ErrNotFound, and what guard returns.
func (s *Service) Erase(ctx context.Context, id uuid.UUID, guard Guard) error {
	return s.db.InTx(ctx, func(ctx context.Context) error {
		if _, err := s.repo.Update(ctx, id, func(u *User) error { return guard(*u) }); err != nil {
			return err
		}
		if err := s.sessions.EndAll(ctx, id, uuid.Nil); err != nil {
			return err
		}
		for _, e := range s.erasers {
			if err := e.Erase(ctx, id); err != nil {
				return err
			}
		}
		if err := s.repo.Delete(ctx, id); err != nil {
			return err
		}
		return s.record(ctx, "user.erased", id, nil)
	})
}

// Restore makes a soft-deleted user active again, also one who was suspended before.
// Errors: ErrNotFound, ErrNotDeleted, and what guard returns.
func (s *Service) Restore(ctx context.Context, id uuid.UUID, guard Guard) (User, error) {
	var u User
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		var err error
		u, err = s.repo.Update(ctx, id, func(u *User) error {
			if err := guard(*u); err != nil {
				return err
			}
			if u.Status != Deleted {
				return ErrNotDeleted
			}
			u.Status = Active
			return nil
		})
		if err != nil {
			return err
		}
		return s.record(ctx, "user.restored", id, nil)
	})
	return u, err
}

// NewPassword replaces a user's password.
type NewPassword struct {
	Password string
	Current  *string   // verified when not nil
	Keep     uuid.UUID // the session that survives; zero: none
}

// SetPassword replaces a password and ends the user's other sessions.
//
// Errors: ErrNotFound, ErrDeleted, ErrWrongPassword, errs.ErrInvalid, errs.ErrBusy.
func (s *Service) SetPassword(ctx context.Context, id uuid.UUID, in NewPassword) error {
	u, err := s.repo.ByID(ctx, id)
	if err != nil {
		return err
	}
	var old string
	if in.Current != nil {
		if old, err = s.verifyCurrent(ctx, id, *in.Current); err != nil {
			return err
		}
	}
	hash, err := s.checkAndHash(ctx, u, in.Password)
	if err != nil {
		return err
	}
	return s.db.InTx(ctx, func(ctx context.Context) error {
		return s.setHash(ctx, id, in.Keep, func(ctx context.Context) error {
			if in.Current == nil {
				return s.repo.SetCredential(ctx, id, hash)
			}
			same, err := s.repo.SwapCredential(ctx, id, old, hash)
			if err == nil && !same { // somebody else changed it since it was verified
				err = wrongCurrent()
			}
			return err
		})
	})
}

func wrongCurrent() error {
	return ErrWrongPassword.With(errs.Field{Pointer: "/current_password", Code: "wrong", Message: "Is wrong."})
}

func (s *Service) verifyCurrent(ctx context.Context, id uuid.UUID, password string) (string, error) {
	hash, err := s.repo.Credential(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return "", err
	}
	ok, err := s.hasher.verify(ctx, password, hash)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", wrongCurrent()
	}
	return hash, nil
}

func (s *Service) checkAndHash(ctx context.Context, u User, password string) (string, error) {
	if u.Status == Deleted {
		return "", ErrDeleted
	}
	if err := errs.Violated(checkPassword(password, u.Email, u.Name)); err != nil {
		return "", err
	}
	return s.hasher.hash(ctx, password)
}

// setHash has a hash stored under the user's row lock, so that a sign-in with the former password comes before it and is
// ended, or after it and fails. All that lock both rows lock the user's first.
func (s *Service) setHash(ctx context.Context, id, keep uuid.UUID, store func(ctx context.Context) error) error {
	_, err := s.repo.Update(ctx, id, func(u *User) error {
		if u.Status == Deleted {
			return ErrDeleted
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := store(ctx); err != nil {
		return err
	}
	if err := s.sessions.EndAll(ctx, id, keep); err != nil {
		return err
	}
	return s.record(ctx, "user.password_changed", id, nil)
}

// Verified is a user who has proved that they know the password, and the hash that it was checked against.
type Verified struct {
	User User
	hash string
}

// Authenticate verifies an e-mail address and a password. It takes the same time whether the account exists or not.
//
// Errors: ErrInvalidCredentials; ErrSuspended, to those who know the password; errs.ErrBusy.
func (s *Service) Authenticate(ctx context.Context, email, password string) (Verified, error) {
	u, err := s.repo.ByEmail(ctx, strings.TrimSpace(email))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Verified{}, err
	}
	hash := ""
	if err == nil && u.Status != Deleted {
		if hash, err = s.repo.Credential(ctx, u.ID); err != nil && !errors.Is(err, ErrNotFound) {
			return Verified{}, err
		}
	}
	ok, err := s.hasher.verify(ctx, password, hash)
	if err != nil {
		return Verified{}, err
	}
	if !ok {
		return Verified{}, ErrInvalidCredentials
	}
	if u.Status == Suspended {
		return Verified{}, ErrSuspended
	}
	if outdated(hash) {
		if hash, err = s.upgrade(ctx, u.ID, hash, password); err != nil {
			return Verified{}, err
		}
	}
	return Verified{User: u, hash: hash}, nil
}

// upgrade replaces a foreign or outdated hash by one of ours, and returns the one that stands now.
func (s *Service) upgrade(ctx context.Context, id uuid.UUID, old, password string) (string, error) {
	hash, err := s.hasher.hash(ctx, password)
	if err != nil {
		return "", err
	}
	swapped, err := s.repo.SwapCredential(db.Aside(ctx), id, old, hash)
	if err != nil || !swapped {
		return old, err
	}
	return hash, nil
}

// SignedIn notes the sign-in of a verified user in the transaction that the context carries, in which the session is
// made. It fails when, since it was verified, the password was changed or the account suspended or deleted.
//
// Errors: ErrInvalidCredentials, ErrSuspended.
func (s *Service) SignedIn(ctx context.Context, v Verified) (User, error) {
	u, err := s.repo.SignedIn(ctx, v.User.ID)
	if errors.Is(err, ErrNotFound) {
		if u, err := s.repo.ByID(ctx, v.User.ID); err == nil && u.Status == Suspended {
			return User{}, ErrSuspended
		}
		return User{}, ErrInvalidCredentials
	}
	if err != nil {
		return User{}, err
	}
	if hash, err := s.repo.Credential(ctx, u.ID); err != nil {
		return User{}, err
	} else if hash != v.hash {
		return User{}, ErrInvalidCredentials
	}
	return u, nil
}

func (s *Service) record(ctx context.Context, action string, id uuid.UUID, metadata map[string]any) error {
	return s.audit.Record(ctx, action, "user", []string{ids.Format(IDPrefix, id)}, metadata)
}

package sessions

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/web"
)

// Service holds the rules of sessions. It opens the transactions, and records in each what it changed.
type Service struct {
	db       *db.DB
	repo     Repository
	users    Users
	audit    Auditor
	seen     *seenLog
	throttle throttle
	cfg      Config
}

var _ web.SessionVerifier = (*Service)(nil)

func newService(deps Deps) *Service {
	cfg := deps.Config
	seen := SeenPolicy{Idle: cfg.IdleTimeout, Interval: min(cfg.SeenInterval, cfg.IdleTimeout/10)}
	return &Service{
		db: deps.DB, repo: deps.Repository, users: deps.Users, audit: deps.Auditor, cfg: cfg,
		seen:     newSeenLog(deps.Repository, seen),
		throttle: throttle{repo: deps.Repository, limit: cfg.AccountLimit, log: deps.Log},
	}
}

// SignedIn is a session that has just been made.
type SignedIn struct {
	Session Session
	Token   string           // shown this once
	User    web.JSONAppender // as the API shows it
}

// SignIn makes a session for whoever knows the password of an account. Those who do not learn nothing more, not even
// from the time it takes; they are recorded, without the e-mail address, and limited.
//
// Errors: of Kind Unauthenticated for wrong credentials, of Kind Forbidden for a suspended account, web.ErrRateLimited.
func (s *Service) SignIn(ctx context.Context, email, password string) (SignedIn, error) {
	attempt := s.throttle.attempt(email, web.RequestFrom(ctx).IP)
	tally, err := s.throttle.admit(ctx, attempt)
	if err != nil {
		return SignedIn{}, err
	}
	var in SignedIn
	in.User, err = s.users.SignIn(ctx, email, password, func(ctx context.Context, userID uuid.UUID) error {
		if err := s.repo.Recognise(ctx, attempt.Client, userID); err != nil {
			return err
		}
		var err error
		in.Session, in.Token, err = s.open(ctx, userID)
		return err
	})
	if err != nil && errs.KindOf(err) == errs.Unauthenticated {
		if err := s.audit.Record(ctx, "session.sign_in_failed", "", []string{""}, nil); err != nil {
			return SignedIn{}, err
		}
		return SignedIn{}, err
	}
	s.throttle.forgive(ctx, tally)
	if err != nil {
		return SignedIn{}, err
	}
	return in, nil
}

// open makes a session in the transaction that holds the account.
func (s *Service) open(ctx context.Context, userID uuid.UUID) (Session, string, error) {
	token, hash := newToken()
	client := web.RequestFrom(ctx)
	session, err := s.repo.Create(ctx, NewSession{
		ID: ids.New(), UserID: userID, TokenHash: hash, IP: client.IP, UserAgent: client.UserAgent,
		Idle: s.cfg.IdleTimeout, Lifetime: s.cfg.Lifetime,
	})
	if err != nil {
		return Session{}, "", err
	}
	web.Identify(ctx, userID, session.ID)
	if err := s.record(ctx, "session.created", session); err != nil {
		return Session{}, "", err
	}
	surplus, err := s.repo.LockAll(ctx, userID, s.cfg.MaxPerUser)
	if err != nil {
		return Session{}, "", err
	}
	return session, token, s.end(ctx, surplus)
}

// Verified is a session whose token has been presented, and its user, who is active.
type Verified struct {
	Session Session
	User    web.JSONAppender // as the API shows it
}

// Verify returns the live session that a token belongs to, and notes that it is used.
//
// Errors: ErrTokenInvalid. A database that does not answer is never mistaken for an invalid token.
func (s *Service) Verify(ctx context.Context, token string) (*Verified, error) {
	hash, err := hashToken(token)
	if err != nil {
		return nil, err
	}
	ctx = cache.Together(ctx)
	session, err := s.repo.ByToken(ctx, hash)
	if errors.Is(err, ErrNotFound) {
		return nil, ErrTokenInvalid
	}
	if err != nil {
		return nil, err
	}
	user, active, err := s.users.Active(ctx, session.UserID)
	if err != nil {
		return nil, err
	}
	if !active {
		return nil, ErrTokenInvalid
	}
	now := time.Now()
	s.seen.note(session.ID, now, session.IdleExpiresAt.Sub(now) < 2*s.cfg.FlushInterval)
	return &Verified{Session: session, User: user}, nil
}

// VerifySession implements web.SessionVerifier. The handlers of the request find the session with current.
func (s *Service) VerifySession(ctx context.Context, token string) (userID, sessionID uuid.UUID, err error) {
	v, err := s.Verify(ctx, token)
	if err != nil {
		return uuid.Nil, uuid.Nil, err
	}
	web.Keep(ctx, v)
	return v.Session.UserID, v.Session.ID, nil
}

// current returns the session that makes the request. Errors: ErrTokenInvalid outside of a request by a session.
func current(ctx context.Context) (*Verified, error) {
	if v, ok := web.Kept(ctx).(*Verified); ok {
		return v, nil
	}
	return nil, ErrTokenInvalid
}

// List returns a user's live sessions, newest first.
func (s *Service) List(ctx context.Context, userID uuid.UUID) ([]Session, error) {
	return s.repo.List(ctx, userID)
}

// Rotate gives a session a new token; the one it was verified with is dead when this returns. Its lifetimes go on.
//
// Errors: ErrTokenInvalid when the session has ended, or was rotated, since it was verified.
func (s *Service) Rotate(ctx context.Context, v *Verified) (Session, string, error) {
	token, hash := newToken()
	var session Session
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		locked, err := s.repo.Lock(ctx, v.Session.ID)
		if errors.Is(err, ErrNotFound) || err == nil && locked.TokenHash != v.Session.TokenHash {
			return ErrTokenInvalid
		}
		if err != nil {
			return err
		}
		if session, err = s.repo.Rotate(ctx, locked, hash); err != nil {
			return err
		}
		return s.record(ctx, "session.rotated", session)
	})
	return session, token, err
}

// Revoke ends a session; one that there is not has ended. Owner, when not zero, must be its user.
//
// Errors: ErrNotFound for a session of somebody else.
func (s *Service) Revoke(ctx context.Context, id, owner uuid.UUID) error {
	return s.db.InTx(ctx, func(ctx context.Context) error {
		locked, err := s.repo.Lock(ctx, id)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if owner != uuid.Nil && locked.UserID != owner {
			return ErrNotFound
		}
		return s.end(ctx, []Session{locked})
	})
}

// RevokeAll ends a user's sessions, but for the one named except, and returns how many there were.
func (s *Service) RevokeAll(ctx context.Context, userID, except uuid.UUID) (int, error) {
	var ended []Session
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		locked, err := s.repo.LockAll(ctx, userID, 0)
		if err != nil {
			return err
		}
		ended = slices.DeleteFunc(locked, func(session Session) bool { return session.ID == except })
		return s.end(ctx, ended)
	})
	return len(ended), err
}

// EndAll is RevokeAll for the users module, which calls it in the transaction that suspends, deletes or changes the
// password of a user.
func (s *Service) EndAll(ctx context.Context, userID, except uuid.UUID) error {
	_, err := s.RevokeAll(ctx, userID, except)
	return err
}

// Erase removes all that is kept about a user, in the transaction that the context carries.
func (s *Service) Erase(ctx context.Context, userID uuid.UUID) error {
	return s.db.InTx(ctx, func(ctx context.Context) error {
		if err := s.EndAll(ctx, userID, uuid.Nil); err != nil {
			return err
		}
		return s.repo.Forget(ctx, userID)
	})
}

// deleteExpired removes the sessions that have expired and returns their number, and what the throttle need not remember.
func (s *Service) deleteExpired(ctx context.Context) (int64, error) {
	n, err := db.InBatches(func() (int64, error) { return s.repo.DeleteExpired(ctx, s.cfg.CleanupBatch) })
	if err == nil {
		_, err = db.InBatches(func() (int64, error) { return s.repo.DeleteStale(ctx, clientMemory, s.cfg.CleanupBatch) })
	}
	return n, err
}

// end deletes sessions that have been locked.
func (s *Service) end(ctx context.Context, locked []Session) error {
	if len(locked) == 0 {
		return nil
	}
	if err := s.repo.Delete(ctx, locked); err != nil {
		return err
	}
	return s.record(ctx, "session.revoked", locked...)
}

// record notes what happened to sessions of one user.
func (s *Service) record(ctx context.Context, action string, list ...Session) error {
	targets := make([]string, len(list))
	for i, session := range list {
		targets[i] = ids.Format(IDPrefix, session.ID)
	}
	return s.audit.Record(ctx, action, "session", targets, map[string]any{"user_id": ids.Format(userIDPrefix, list[0].UserID)})
}

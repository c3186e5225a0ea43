package sessions

import (
	"context"
	"embed"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/web"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the module's tables. Only this module writes them.
func Migrations() db.Migration { return db.Embedded("sessions", migrations) }

// Users knows the accounts.
type Users interface {
	// SignIn verifies an e-mail address and a password, in the same time whether the account exists or not. If they are
	// right it calls open in a transaction that holds the account: a suspension, a deletion or a change of the password
	// comes either before it, and is seen, or after it, and ends the session. It returns the user as the API shows it.
	//
	// Errors: of Kind Unauthenticated for wrong credentials, of Kind Forbidden for a suspended account, and what open
	// returns.
	SignIn(ctx context.Context, email, password string, open func(ctx context.Context, userID uuid.UUID) error) (web.JSONAppender, error)

	// Active returns a user as the API shows it, and whether the account is active. A user who does not exist is not.
	//
	// Errors: those of the database.
	Active(ctx context.Context, userID uuid.UUID) (user web.JSONAppender, active bool, err error)
}

// Auditor records who did what to each of the targets, in the transaction that the context carries, or in its own.
// Metadata holds names and ids.
type Auditor interface {
	Record(ctx context.Context, action, targetType string, targetIDs []string, metadata map[string]any) error
}

// Config is what an operator decides about sessions.
type Config struct {
	IdleTimeout     time.Duration // a session that is not used for so long ends
	Lifetime        time.Duration // and any session after this
	SeenInterval    time.Duration // the use of a session is written at most once in this time
	FlushInterval   time.Duration // how long it waits to be written, together with that of others
	CleanupInterval time.Duration // between removals of expired sessions
	CleanupBatch    int           // sessions removed per statement
	MaxPerUser      int           // sessions of one user; a further one ends the oldest
	AccountLimit    web.Limit     // failed sign-ins per account; see throttle
}

// Deps is what the module needs from outside.
type Deps struct {
	DB         *db.DB
	Repository Repository
	Users      Users
	Auditor    Auditor
	Log        *slog.Logger
	Config     Config
}

// Module is the sessions module: its rules, for the other modules' adapters, and its routes.
type Module struct {
	Service *Service
	deps    Deps
}

// New returns the module.
func New(deps Deps) *Module {
	return &Module{Service: newService(deps), deps: deps}
}

// Run writes down the use of sessions and removes expired ones until ctx ends; then it writes what is left. Several
// instances may run it at once.
func (m *Module) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { m.flush(ctx) })
	wg.Go(func() { m.cleanUp(ctx) })
	wg.Wait()
	return nil
}

// lastFlush bounds how long the use of sessions may hold up the end of the process.
const lastFlush = 5 * time.Second

func (m *Module) flush(ctx context.Context) {
	seen := m.Service.seen
	ticker := time.NewTicker(m.deps.Config.FlushInterval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-ticker.C:
		case <-seen.wake:
		}
		if err := seen.flush(ctx); err != nil && ctx.Err() == nil {
			m.deps.Log.WarnContext(ctx, "noting the use of sessions failed, and will be tried again", "error", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastFlush)
	defer cancel()
	if err := seen.flush(ctx); err != nil {
		m.deps.Log.WarnContext(ctx, "the last use of some sessions is lost", "error", err)
	}
}

// clientMemory is how long an account remembers a client from which it was signed in to.
const clientMemory = 90 * 24 * time.Hour

func (m *Module) cleanUp(ctx context.Context) {
	ticker := time.NewTicker(m.deps.Config.CleanupInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		n, err := m.Service.deleteExpired(ctx)
		if err != nil && ctx.Err() == nil {
			m.deps.Log.ErrorContext(ctx, "removal of expired sessions failed", "error", err)
		}
		if n > 0 {
			m.deps.Log.InfoContext(ctx, "removed expired sessions", "count", n)
		}
	}
}

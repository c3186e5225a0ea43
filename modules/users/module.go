package users

import (
	"context"
	"embed"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/db"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the module's tables. Only this module writes them.
func Migrations() db.Migration { return db.Embedded("users", migrations) }

// Auditor records who did what, in the transaction that the context carries. Metadata holds names, never values.
type Auditor interface {
	Record(ctx context.Context, action, targetType string, targetIDs []string, metadata map[string]any) error
}

// SessionEnder ends a user's sessions in the transaction that the context carries. Except, when not zero, survives.
type SessionEnder interface {
	EndAll(ctx context.Context, userID, except uuid.UUID) error
}

// Eraser removes for good, in the transaction that the context carries, what another module keeps about a user.
type Eraser interface {
	Erase(ctx context.Context, userID uuid.UUID) error
}

// Config is what an operator decides about accounts.
type Config struct {
	PublicSignUp    bool          // whether POST /v1/users needs no key
	HashConcurrency int           // passwords hashed at a time; 0: one fewer than the cores
	HashWait        time.Duration // how long a request waits for its turn to hash
	TokenLifetime   time.Duration // of the tokens for e-mail verification and password reset
	CleanupInterval time.Duration // between removals of expired tokens
	ImportBatch     int           // users per transaction of an import
}

// Deps is what the module needs from outside.
type Deps struct {
	DB         *db.DB
	Repository Repository
	Auditor    Auditor
	Sessions   SessionEnder
	Erasers    []Eraser
	Log        *slog.Logger
	Config     Config

	// Hashing starts processes that hash passwords, the preferred one first: all but the last may be short of time. Empty:
	// passwords are hashed here.
	Hashing []Start
}

// Module is the users module: its rules, for the other modules' adapters, and its routes.
type Module struct {
	Service *Service
	deps    Deps
}

// New returns the module.
func New(deps Deps) *Module {
	return &Module{Service: newService(deps), deps: deps}
}

// Run removes expired tokens until ctx ends. Several instances may run it at once.
func (m *Module) Run(ctx context.Context) error {
	ticker := time.NewTicker(m.deps.Config.CleanupInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if n, err := m.Service.deleteExpiredTokens(ctx); err != nil {
				m.deps.Log.ErrorContext(ctx, "removal of expired tokens failed", "error", err)
			} else if n > 0 {
				m.deps.Log.InfoContext(ctx, "removed expired tokens", "count", n)
			}
		}
	}
}

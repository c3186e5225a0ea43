package preferences

import (
	"context"
	"embed"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/db"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the module's tables. Only this module writes them.
func Migrations() db.Migration { return db.Embedded("preferences", migrations) }

// Auditor records who did what, in the transaction that the context carries. Metadata holds names, never values.
type Auditor interface {
	Record(ctx context.Context, action, targetType string, targetIDs []string, metadata map[string]any) error
}

// Users knows who exists. Both methods return the users module's own error for one who does not, or has been erased.
type Users interface {
	Exists(ctx context.Context, userID uuid.UUID) error
	// Hold keeps the user from being erased until the transaction that the context carries ends.
	Hold(ctx context.Context, userID uuid.UUID) error
}

// Deps is what the module needs from outside.
type Deps struct {
	DB         *db.DB
	Repository Repository
	Users      Users
	Auditor    Auditor
}

// Module is the preferences module: its rules, for the other modules' adapters, and its routes.
type Module struct {
	Service *Service
}

// New returns the module.
func New(deps Deps) *Module {
	return &Module{Service: newService(deps)}
}

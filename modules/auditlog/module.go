package auditlog

import (
	"embed"
	"io/fs"

	"github.com/strata-accounts/strata/platform/db"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the module's tables. Only this module writes them.
func Migrations() db.Migration {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return db.Migration{Module: "auditlog", FS: files}
}

// Deps is what the module needs from outside.
type Deps struct {
	DB         *db.DB
	Repository Repository
}

// Module is the audit log.
type Module struct {
	Service *Service
}

// New returns the module.
func New(deps Deps) *Module {
	return &Module{Service: &Service{repo: deps.Repository}}
}

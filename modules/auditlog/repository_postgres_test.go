package auditlog

import (
	"testing"

	"gorm.io/gorm"
)

// gormListQuery returns the query by which PostgresRepository lists events, without running it.
func gormListQuery(t *testing.T, r *PostgresRepository, f Filter) (query string, args []any) {
	t.Helper()
	statement := r.list(t.Context(), f).Session(&gorm.Session{DryRun: true}).Find(&[]eventRow{}).Statement
	return statement.SQL.String(), statement.Vars
}

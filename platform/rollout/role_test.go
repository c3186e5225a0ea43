package rollout

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// TestReader: what the comparisons' role may not do does not hang on the transaction being read-only.
func TestReader(t *testing.T) {
	f := newToy(t, Setting{Shadow, Whole})
	role := f.compare.role.Load()
	if role == nil || !f.log.contains(*role) {
		t.Fatalf("comparisons have no role of their own")
	}
	for statement, want := range map[string]string{
		`SELECT name FROM items`:                          "",
		`SELECT module FROM rollout_stages`:               "",
		`UPDATE items SET name = 'x'`:                     "permission denied",
		`INSERT INTO items VALUES ('x', 'x')`:             "permission denied",
		`DELETE FROM rollout_mismatches`:                  "permission denied",
		`CREATE TABLE mine (id int)`:                      "permission denied",
		`ALTER TABLE items ADD COLUMN mine int`:           "must be owner",
		`ALTER ROLE ` + quoted(*role) + ` WITH SUPERUSER`: "must be superuser",
	} {
		err := f.db.InTx(t.Context(), func(ctx context.Context) error {
			if _, err := f.db.Querier(ctx).ExecContext(ctx, assume(*role)); err != nil {
				return err
			}
			_, err := f.db.Querier(ctx).ExecContext(ctx, statement)
			return err
		})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", statement, err, want)
		}
	}
	if _, err := f.db.SQL().ExecContext(t.Context(), `CREATE TABLE later (id int)`); err != nil { // a release may bring some
		t.Fatal(err)
	}
	later := newInstance(t, f.db, Setting{Shadow, Whole})
	if err := later.compare.readOnly(t.Context(), true, func(ctx context.Context) {
		if _, err := f.db.Querier(ctx).ExecContext(ctx, `SELECT * FROM later`); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Error(err)
	}
}

// TestReaderIsMadeWhenNeeded, and not for a deployment that compares nothing.
func TestReaderIsMadeWhenNeeded(t *testing.T) {
	i := newInstance(t, dbtest.Open(t, Migrations()), Setting{Direct, Whole})
	if role := i.compare.role.Load(); role != nil {
		t.Errorf("%s is there before anything is compared", *role)
	}
	i.mustMove(t, Setting{Shadow, 1})
	if i.compare.role.Load() == nil {
		t.Error("comparisons have no role of their own")
	}
	i.cfg.CompareRole = `no "such" role`
	if err := i.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "rollout.compare_role") {
		t.Errorf("with a role that is none it loads: %v", err)
	}
}

// TestWithoutReader: a connection that may do less compares all the same, and the reason is given.
func TestWithoutReader(t *testing.T) {
	d := dbtest.Open(t, Migrations())
	i := newInstance(t, d, Setting{Direct, Whole})
	// as finds a reader as a role that may only do what the statements allow. Nothing of it stays.
	as := func(t *testing.T, statements string) (role, obstacle string) {
		t.Helper()
		done := errors.New("done")
		err := d.InTx(t.Context(), func(ctx context.Context) error {
			if _, err := d.Querier(ctx).ExecContext(ctx, `CREATE ROLE rollout_test_limited;
				GRANT ALL ON SCHEMA public TO rollout_test_limited; `+statements+`; SET LOCAL ROLE rollout_test_limited`); err != nil {
				return err
			}
			var err error
			if role, obstacle, err = i.reader(ctx); err != nil {
				return err
			}
			return done
		})
		if !errors.Is(err, done) {
			t.Fatal(err)
		}
		return role, obstacle
	}
	const own = `DO $$ DECLARE t text; BEGIN
		FOR t IN SELECT oid::regclass FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP
			EXECUTE format('ALTER TABLE %s OWNER TO rollout_test_limited', t);
		END LOOP; END $$; ALTER SCHEMA public OWNER TO rollout_test_limited`
	for name, tt := range map[string]struct{ statements, want string }{
		"may create roles":     {own + `; ALTER ROLE rollout_test_limited CREATEROLE`, ""},
		"may not create roles": {own, "may not create roles"},
		"owns nothing": {
			`GRANT SELECT ON ALL TABLES IN SCHEMA public TO rollout_test_limited; ALTER ROLE rollout_test_limited CREATEROLE`,
			"does not own",
		},
		"somebody else's": {own + `; DO $$ BEGIN EXECUTE format('CREATE ROLE %I', 'strata_reader_' || current_database()); END $$`, "not granted"},
	} {
		t.Run(name, func(t *testing.T) {
			role, obstacle := as(t, tt.statements)
			if !strings.HasPrefix(role, "strata_reader_") || tt.want == "" && obstacle != "" || !strings.Contains(obstacle, tt.want) {
				t.Errorf("role %s, obstacle %q, want %q", role, obstacle, tt.want)
			}
		})
	}
}

package rollout

import (
	"context"
	"fmt"
	"strings"

	"github.com/strata-accounts/strata/platform/db"
)

// quoted returns an identifier as SQL has it.
func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// assume returns the statement that takes a role on until the transaction ends.
func assume(role string) string { return "SET LOCAL ROLE " + quoted(role) }

// useConfiguredRole has comparisons read under the role that the configuration names. Errors: the connection may not
// assume it, so that every comparison would fail.
func (r *Registry) useConfiguredRole(ctx context.Context) error {
	if r.cfg.CompareRole == "" {
		return nil
	}
	err := r.db.InTx(ctx, func(ctx context.Context) error {
		_, err := r.db.Querier(ctx).ExecContext(ctx, assume(r.cfg.CompareRole))
		return db.Translate(err, nil)
	})
	if err != nil {
		return fmt.Errorf("rollout.compare_role: the connection may not assume the role %s: %w", r.cfg.CompareRole, err)
	}
	r.compare.role.Store(&r.cfg.CompareRole)
	return nil
}

// useReader has comparisons read under this database's reader, which is made when the first module needs it. Where that
// may not be, they do under the connection's own role, in read-only transactions all the same, and the log says so.
func (r *Registry) useReader(ctx context.Context) error {
	if r.readerSought || r.compare.role.Load() != nil {
		return nil
	}
	role, obstacle, err := r.reader(ctx)
	if err != nil {
		return fmt.Errorf("rollout: role of comparisons: %w", err)
	}
	r.readerSought = true
	if obstacle != "" {
		r.log.WarnContext(ctx, "rollout: comparisons read under the connection's own role, in read-only transactions; "+
			"rollout.compare_role can name one that cannot write", "reason", obstacle)
		return nil
	}
	r.log.InfoContext(ctx, "rollout: comparisons read under a role that cannot write", "role", role)
	r.compare.role.Store(&role)
	return nil
}

// reader returns the name of a role that can do nothing but read this schema's tables, or what stands in its way. Roles
// belong to all databases of a server: it is named after its own, so that it leads into no other.
func (r *Registry) reader(ctx context.Context) (role, obstacle string, err error) {
	err = r.db.InTx(ctx, func(ctx context.Context) error {
		q := r.db.Querier(ctx)
		if _, err := q.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('strata.rollout.reader', 0))`); err != nil {
			return err
		}
		var exists, member, may bool
		if err := q.QueryRowContext(ctx, `
			SELECT name, known.oid IS NOT NULL, coalesce(pg_has_role(known.oid, 'MEMBER'), false), me.rolsuper OR me.rolcreaterole
			FROM left('strata_reader_' || current_database(), 63) AS name
			JOIN pg_roles me ON me.rolname = current_user LEFT JOIN pg_roles known ON known.rolname = name`).
			Scan(&role, &exists, &member, &may); err != nil {
			return err
		}
		switch {
		case exists && !member:
			obstacle = "the role " + role + " exists and is not granted to the connection's"
			return nil
		case !exists && !may:
			obstacle = "the connection's role may not create roles"
			return nil
		case !exists:
			if _, err := q.ExecContext(ctx, `CREATE ROLE `+quoted(role)+` NOLOGIN; GRANT `+quoted(role)+` TO CURRENT_USER`); err != nil {
				return err
			}
		}
		obstacle, err = grantReads(ctx, q, role)
		return err
	})
	return role, obstacle, db.Translate(err, nil)
}

// grantReads lets the role read this schema's tables, those that are new since the last time too. Partitions are read
// through their tables. It returns an obstacle where there are tables that the connection reads and does not own.
func grantReads(ctx context.Context, q db.Querier, role string) (obstacle string, err error) {
	var grants, foreign string
	if err := q.QueryRowContext(ctx, `
		WITH unread AS (
			SELECT oid::regclass::text AS name, pg_has_role(relowner, 'USAGE') AS owned FROM pg_class
			WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
				AND NOT has_table_privilege($1, oid, 'SELECT') AND has_table_privilege(oid, 'SELECT')
			UNION ALL
			SELECT format('SCHEMA %I', nspname), pg_has_role(nspowner, 'USAGE') FROM pg_namespace
			WHERE nspname = current_schema() AND NOT has_schema_privilege($1, oid, 'USAGE')
		)
		SELECT coalesce(string_agg(format('GRANT %s ON %s TO %I',
				CASE WHEN starts_with(name, 'SCHEMA ') THEN 'USAGE' ELSE 'SELECT' END, name, $1::text), '; ') FILTER (WHERE owned), ''),
			coalesce(string_agg(name, ', ') FILTER (WHERE NOT owned), '')
		FROM unread`, role).Scan(&grants, &foreign); err != nil {
		return "", err
	}
	if foreign != "" {
		return "the connection's role does not own all that it reads: " + foreign, nil
	}
	if grants != "" {
		_, err = q.ExecContext(ctx, grants)
	}
	return "", err
}

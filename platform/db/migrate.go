package db

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Migration is one module's migrations: files NNNNN_name.sql in goose's format at the root of FS. The module's versions
// are counted in a table of their own, schema_migrations_<module>, so that modules never wait for each other's numbers.
type Migration struct {
	Module string
	FS     fs.FS
}

// Embedded returns the migrations of a module that embeds them in its folder migrations.
func Embedded(module string, files embed.FS) Migration {
	root, err := fs.Sub(files, "migrations")
	if err != nil {
		panic(err) // only for a name that is no path
	}
	return Migration{Module: module, FS: root}
}

// Migrate brings every module's tables up to date, in the order given. Instances that start together are serialised by
// an advisory lock; those that come second find nothing to do.
func Migrate(ctx context.Context, d *DB, log *slog.Logger, ms ...Migration) error {
	for _, m := range ms {
		p, err := m.provider(d, true)
		if err != nil {
			return err
		}
		results, err := p.Up(ctx)
		if err != nil {
			return fmt.Errorf("migrate %s: %w", m.Module, Translate(err, nil))
		}
		for _, r := range results {
			log.InfoContext(ctx, "migrated", "module", m.Module, "file", r.Source.Path, "duration", r.Duration)
		}
	}
	return nil
}

// Pending returns how many migrations of these modules have not been applied.
func Pending(ctx context.Context, d *DB, ms ...Migration) (int, error) {
	pending := 0
	for _, m := range ms {
		p, err := m.provider(d, false)
		if err != nil {
			return 0, err
		}
		statuses, err := p.Status(ctx)
		if err != nil {
			return 0, fmt.Errorf("migration status of %s: %w", m.Module, Translate(err, nil))
		}
		for _, s := range statuses {
			if s.State == goose.StatePending {
				pending++
			}
		}
	}
	return pending, nil
}

func (m Migration) provider(d *DB, locked bool) (*goose.Provider, error) {
	opts := []goose.ProviderOption{
		goose.WithTableName("schema_migrations_" + m.Module),
		goose.WithDisableGlobalRegistry(true),
	}
	if locked {
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 120)) // polls each second, two minutes at most
		if err != nil {
			return nil, fmt.Errorf("migration lock: %w", err)
		}
		opts = append(opts, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(goose.DialectPostgres, d.sql, m.FS, opts...)
	if errors.Is(err, goose.ErrNoMigrations) {
		return nil, fmt.Errorf("migrations of %s: no files", m.Module)
	}
	if err != nil {
		return nil, fmt.Errorf("migrations of %s: %w", m.Module, err)
	}
	return p, nil
}

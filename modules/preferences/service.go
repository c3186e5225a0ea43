package preferences

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/web"
)

// userIDPrefix is the TypeID prefix of users, whose preferences these are.
const userIDPrefix = "user"

// definitionTimeout bounds a change of a definition, which looks at every stored value of it, and so how long writes of
// such values may have to wait.
const definitionTimeout = 25 * time.Second

// Service holds the rules of preferences. It opens the transactions, and records in each what it changed.
type Service struct {
	db      *db.DB
	repo    Repository
	users   Users
	audit   Auditor
	schemas *schemas
}

func newService(deps Deps) *Service {
	return &Service{db: deps.DB, repo: deps.Repository, users: deps.Users, audit: deps.Auditor, schemas: newSchemas()}
}

// Definitions returns all definitions.
func (s *Service) Definitions(ctx context.Context) (Catalogue, error) {
	return s.repo.Definitions(ctx)
}

// DefinitionGuard decides on a definition's current version, 0 where there is none, whether a change may go on: If-Match.
type DefinitionGuard func(version int64) error

// PutDefinition creates or replaces a definition, and reports whether it created it.
//
// Errors: errs.ErrInvalid, ErrTooMany, ErrBreaks with the number of values that the new schema would break, and what
// guard returns.
func (s *Service) PutDefinition(ctx context.Context, key string, in NewDefinition, guard DefinitionGuard) (Definition, bool, error) {
	if !keyPattern.MatchString(key) {
		return Definition{}, false, errs.Violated([]errs.Field{{
			Param: "key", Code: "format", Message: "Must be 1 to 64 of a-z, 0-9, '_', '.' and '-', the first a letter.",
		}})
	}
	if err := in.check(); err != nil {
		return Definition{}, false, err
	}
	var d Definition
	var created bool
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		var err error
		d, created, err = s.repo.CreateDefinition(ctx, Definition{
			Key: key, Schema: in.Schema, Default: in.Default, Description: in.Description,
		})
		if err != nil {
			return err
		}
		if created {
			return s.created(ctx, d, guard)
		}
		d, err = s.replace(ctx, key, in, guard)
		return err
	}, db.Timeout(definitionTimeout))
	return d, created, err
}

// created completes the creation of a definition.
func (s *Service) created(ctx context.Context, d Definition, guard DefinitionGuard) error {
	if err := guard(0); err != nil {
		return err
	}
	catalogue, err := s.repo.Definitions(ctx)
	if err != nil {
		return err
	}
	if len(catalogue.Definitions) > MaxDefinitions {
		return ErrTooMany
	}
	return s.recordDefinition(ctx, "created", d.Key, nil)
}

// replace changes a definition that exists, and refuses a schema that stored values do not satisfy.
func (s *Service) replace(ctx context.Context, key string, in NewDefinition, guard DefinitionGuard) (Definition, error) {
	var before Definition
	after, err := s.repo.UpdateDefinition(ctx, key, func(d *Definition) error {
		before = *d
		if err := guard(d.Version); err != nil {
			return err
		}
		d.Schema, d.Default, d.Description = in.Schema, in.Default, in.Description
		if slices.Contains(before.changed(*d), "schema") {
			return s.checkStored(ctx, *d)
		}
		return nil
	})
	if err != nil {
		return Definition{}, err
	}
	if names := before.changed(after); len(names) > 0 {
		return after, s.recordDefinition(ctx, "updated", key, map[string]any{"changed": names})
	}
	return after, nil
}

// checkStored holds all stored values of a definition against its schema. Errors: ErrBreaks.
func (s *Service) checkStored(ctx context.Context, d Definition) error {
	schema, err := s.schemas.of(d)
	if err != nil {
		return err
	}
	var broken int64
	err = s.repo.EachValue(ctx, d.Key, func(text json.RawMessage, users int64) error {
		value, err := web.DecodeValue(text)
		if err != nil {
			return fmt.Errorf("stored value of %s: %w", d.Key, err)
		}
		if len(schema.violations("", value)) > 0 {
			broken += users
		}
		return ctx.Err() // the values may be many: stop when the time is up
	})
	if err == nil && broken > 0 {
		return breaks(broken)
	}
	return err
}

// DeleteDefinition removes a definition that no user has set a value for.
//
// Errors: ErrNotDefined, ErrInUse with the number of users, and what guard returns.
func (s *Service) DeleteDefinition(ctx context.Context, key string, guard DefinitionGuard) error {
	return s.db.InTx(ctx, func(ctx context.Context) error {
		if _, err := s.repo.UpdateDefinition(ctx, key, func(d *Definition) error { return guard(d.Version) }); err != nil {
			return err
		}
		var holders int64
		err := s.repo.EachValue(ctx, key, func(_ json.RawMessage, users int64) error {
			holders += users
			return nil
		})
		if err != nil {
			return err
		}
		if holders > 0 {
			return inUse(holders)
		}
		if err := s.repo.DeleteDefinition(ctx, key); err != nil {
			return err
		}
		return s.recordDefinition(ctx, "deleted", key, nil)
	}, db.Timeout(definitionTimeout))
}

func (s *Service) recordDefinition(ctx context.Context, verb, key string, metadata map[string]any) error {
	return s.audit.Record(ctx, "preference_definition."+verb, "preference_definition", []string{key}, metadata)
}

// Of returns the preferences that hold for a user. Errors: those of Users.Exists.
func (s *Service) Of(ctx context.Context, userID uuid.UUID) (Preferences, error) {
	if err := s.users.Exists(ctx, userID); err != nil {
		return Preferences{}, err
	}
	catalogue, err := s.repo.Definitions(ctx)
	if err != nil {
		return Preferences{}, err
	}
	values, err := s.repo.Values(ctx, userID)
	if err != nil {
		return Preferences{}, err
	}
	return effective(catalogue, values), nil
}

// Guard decides on the tag of a user's preferences whether a change may go on: If-Match.
type Guard func(tag string) error

// Patch applies a JSON Merge Patch to a user's preferences: a value is merged into the one that holds, null returns to
// the default. It changes all or nothing.
//
// Errors: those of Users.Hold; errs.ErrInvalid for a key that is not defined or a value that its schema does not
// allow; ErrTooLarge; and what guard returns.
func (s *Service) Patch(ctx context.Context, userID uuid.UUID, patch map[string]json.RawMessage, guard Guard) (Preferences, error) {
	keys := slices.Sorted(maps.Keys(patch))
	decoded := make(map[string]any, len(patch))
	var fields []errs.Field
	for _, key := range keys {
		_, value, bad := normalize(pointerTo("", key), patch[key], MaxValues)
		decoded[key] = value
		fields = append(fields, bad...)
	}
	if err := errs.Violated(fields); err != nil {
		return Preferences{}, err
	}
	return s.change(ctx, userID, keys, guard, func(c Catalogue, v *Values) error {
		var fields []errs.Field
		for _, key := range keys {
			bad, err := s.patchOne(c, v, key, decoded[key])
			if err != nil {
				return err
			}
			fields = append(fields, bad...)
		}
		return errs.Violated(fields)
	})
}

// patchOne applies one member of a patch.
func (s *Service) patchOne(c Catalogue, v *Values, key string, patch any) ([]errs.Field, error) {
	at := pointerTo("", key)
	d, ok := c.ByKey(key)
	if !ok {
		return []errs.Field{{Pointer: at, Code: ErrNotDefined.Code, Message: ErrNotDefined.Message}}, nil
	}
	if patch == nil {
		v.unset(key)
		return nil, nil
	}
	current := d.Default
	if set, ok := v.get(key); ok {
		current = set
	}
	target, err := web.DecodeValue(current)
	if err != nil {
		return nil, fmt.Errorf("stored value of %s: %w", key, err)
	}
	value := web.MergeValue(target, patch)
	text, err := web.EncodeValue(value)
	if err != nil {
		return nil, err
	}
	return s.set(v, d, at, text, value)
}

// set puts a value in place that its schema allows.
func (s *Service) set(v *Values, d Definition, pointer string, text json.RawMessage, value any) ([]errs.Field, error) {
	schema, err := s.schemas.of(d)
	if err != nil {
		return nil, err
	}
	v.set(d.Key, text)
	return schema.violations(pointer, value), nil
}

// Put sets one preference of a user. Null is a value like any other here.
//
// Errors: those of Users.Hold, ErrNotDefined, errs.ErrInvalid, ErrTooLarge, and what guard returns.
func (s *Service) Put(ctx context.Context, userID uuid.UUID, key string, value json.RawMessage, guard Guard) (Preferences, error) {
	const pointer = "/value"
	text, decoded, fields := normalize(pointer, value, MaxValues)
	if err := errs.Violated(fields); err != nil {
		return Preferences{}, err
	}
	return s.change(ctx, userID, []string{key}, guard, func(c Catalogue, v *Values) error {
		d, ok := c.ByKey(key)
		if !ok {
			return ErrNotDefined
		}
		fields, err := s.set(v, d, pointer, text, decoded)
		if err != nil {
			return err
		}
		return errs.Violated(fields)
	})
}

// Reset returns one preference of a user to its default.
//
// Errors: those of Users.Hold, ErrNotDefined, and what guard returns.
func (s *Service) Reset(ctx context.Context, userID uuid.UUID, key string, guard Guard) (Preferences, error) {
	return s.change(ctx, userID, []string{key}, guard, func(c Catalogue, v *Values) error {
		if _, ok := c.ByKey(key); !ok {
			return ErrNotDefined
		}
		v.unset(key)
		return nil
	})
}

// change is the transaction in which a user's values change: the user stays, the definitions of these keys stay as they
// are, and nobody else changes the same user's values.
func (s *Service) change(ctx context.Context, userID uuid.UUID, keys []string, guard Guard, mutate func(Catalogue, *Values) error) (Preferences, error) {
	var p Preferences
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		if err := s.users.Hold(ctx, userID); err != nil {
			return err
		}
		if err := s.repo.LockDefinitions(ctx, keys); err != nil {
			return err
		}
		catalogue, err := s.repo.Definitions(ctx)
		if err != nil {
			return err
		}
		var before Values
		after, err := s.repo.UpdateValues(ctx, userID, func(v *Values) error {
			before = v.clone()
			if err := guard(effective(catalogue, before).Tag); err != nil {
				return err
			}
			if err := mutate(catalogue, v); err != nil {
				return err
			}
			if v.size() > MaxValues {
				return ErrTooLarge
			}
			return nil
		})
		if err != nil {
			return err
		}
		p = effective(catalogue, after)
		set, unset := before.diff(after)
		return s.recordValues(ctx, userID, slices.Sorted(slices.Values(append(set, unset...))))
	})
	return p, err
}

func (s *Service) recordValues(ctx context.Context, userID uuid.UUID, changed []string) error {
	if len(changed) == 0 {
		return nil
	}
	return s.audit.Record(ctx, "preferences.updated", "user", []string{ids.Format(userIDPrefix, userID)},
		map[string]any{"changed": changed})
}

// Erase removes all that is kept about a user, in the transaction that the context carries.
func (s *Service) Erase(ctx context.Context, userID uuid.UUID) error {
	return s.repo.DeleteValues(ctx, userID)
}

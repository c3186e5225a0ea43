package users

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
)

// ImportLine is a user as another system gives it.
type ImportLine struct {
	Email         string
	EmailVerified bool
	Name          string
	Metadata      json.RawMessage
	PasswordHash  string // PHC argon2id, scrypt or PBKDF2, or bcrypt; replaced by one of ours at the next sign-in
}

func (s *Service) checkLine(l *ImportLine) error {
	l.Email = strings.TrimSpace(l.Email)
	if len(l.Metadata) == 0 {
		l.Metadata = json.RawMessage("{}")
	}
	fields := validate(l.Email, l.Name, l.Metadata)
	if l.PasswordHash != "" && !s.hasher.acceptable(l.PasswordHash) {
		fields = append(fields, errs.Field{
			Pointer: "/password_hash", Code: "format",
			Message: "Must be an argon2id, bcrypt, scrypt or PBKDF2 hash of bounded cost.",
		})
	}
	return errs.Violated(fields)
}

// ImportResult is what became of a line: an error of it alone, or the id under which its e-mail address is known now.
type ImportResult struct {
	Imported
	Err error
}

// Import creates, in one transaction, the users of a batch whose e-mail addresses nobody has. What exists is left as it
// is, so that running an import again changes nothing. Errors: those of the database; a line's own are in its result.
func (s *Service) Import(ctx context.Context, lines []ImportLine) ([]ImportResult, error) {
	results := make([]ImportResult, len(lines))
	batch := make([]ImportUser, 0, len(lines))
	at := make([]int, 0, len(lines)) // where in lines each of batch comes from
	for i := range lines {
		l := &lines[i]
		if results[i].Err = s.checkLine(l); results[i].Err != nil {
			continue
		}
		at = append(at, i)
		batch = append(batch, ImportUser{Hash: l.PasswordHash, User: User{
			ID: ids.New(), Email: l.Email, EmailVerified: l.EmailVerified, Name: l.Name, Status: Active, Metadata: l.Metadata,
		}})
	}
	if len(batch) == 0 {
		return results, nil
	}
	err := s.db.InTx(ctx, func(ctx context.Context) error {
		imported, err := s.repo.Import(ctx, batch)
		if err != nil {
			return err
		}
		var created []string
		for n, r := range imported {
			results[at[n]].Imported = r
			if r.Created {
				created = append(created, ids.Format(IDPrefix, r.ID))
			}
		}
		if len(created) == 0 {
			return nil
		}
		return s.audit.Record(ctx, "user.imported", "user", created, nil)
	})
	return results, err
}

// exportPage is how many users an export reads at a time.
const exportPage = 500

// Export gives every user but the deleted to visit, newest first, in constant memory. It reads page by page: users that
// are created meanwhile are not in it, and no transaction stays open. An error of visit ends it, and is returned.
func (s *Service) Export(ctx context.Context, visit func(User) error) error {
	f := Filter{Limit: exportPage}
	for {
		page, err := s.repo.List(ctx, f)
		if err != nil {
			return err
		}
		for _, u := range page {
			if err := visit(u); err != nil {
				return err
			}
		}
		if len(page) < exportPage {
			return nil
		}
		last := page[len(page)-1]
		f.After = &Position{CreatedAt: last.CreatedAt, ID: last.ID}
	}
}

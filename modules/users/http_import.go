package users

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/web"
)

type importLine struct {
	Email         string      `json:"email" example:"ada@example.com"`
	EmailVerified bool        `json:"email_verified,omitempty"`
	Name          string      `json:"name,omitempty"`
	Metadata      web.RawJSON `json:"metadata,omitempty"`
	PasswordHash  string      `json:"password_hash,omitempty" doc:"argon2id, scrypt or PBKDF2 as a PHC string, or bcrypt."`
}

type importResult struct {
	Line   int           `json:"line" doc:"Counted from 1."`
	Status string        `json:"status" enum:"created,exists,invalid"`
	ID     string        `json:"id,omitempty" doc:"Of the user who has this e-mail address now."`
	Code   string        `json:"code,omitempty" doc:"Why the line is invalid."`
	Errors []importError `json:"errors,omitempty"`
}

type importError struct {
	Pointer string `json:"pointer"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

type importInput struct{ web.NDJSONBody[importLine] }

func (h handlers) importUsers(_ context.Context, in *importInput) (*web.Stream, error) {
	return web.StreamNDJSON(func(ctx context.Context, w *web.RecordWriter) error {
		i := &importer{service: h.service, answer: w}
		batch := make([]web.Line[importLine], 0, h.batch)
		for line, err := range in.Lines() {
			if err != nil {
				if failed := i.finish(); failed != nil {
					return failed
				}
				return err
			}
			if batch = append(batch, line); len(batch) == h.batch {
				if err := i.store(ctx, batch); err != nil {
					return err
				}
				batch = make([]web.Line[importLine], 0, h.batch)
			}
		}
		if err := i.store(ctx, batch); err != nil {
			return err
		}
		return i.finish()
	}), nil
}

// importer stores one batch while the next one is read: PostgreSQL and this process work at the same time. The answer is
// written by whoever reads the body.
type importer struct {
	service *Service
	answer  *web.RecordWriter
	batch   []web.Line[importLine] // under way
	done    chan importOutcome     // of it; nil where nothing is under way
}

type importOutcome struct {
	results []ImportResult
	err     error
}

// store finishes the batch before and starts this one.
func (i *importer) store(ctx context.Context, batch []web.Line[importLine]) error {
	if err := i.finish(); err != nil {
		return err
	}
	var lines []ImportLine
	for _, l := range batch {
		if l.Err == nil {
			v := l.Value
			lines = append(lines, ImportLine{v.Email, v.EmailVerified, v.Name, json.RawMessage(v.Metadata), v.PasswordHash})
		}
	}
	done := make(chan importOutcome, 1)
	i.batch, i.done = batch, done
	go func() {
		var o importOutcome
		defer func() {
			if r := recover(); r != nil { // here it would end the process
				o.err = fmt.Errorf("import: panic: %v", r)
			}
			done <- o
		}()
		o.results, o.err = i.service.Import(ctx, lines)
	}()
	return nil
}

// finish waits for the batch under way, if there is one, and answers its lines.
func (i *importer) finish() error {
	if i.done == nil {
		return nil
	}
	o := <-i.done
	i.done = nil
	if o.err != nil {
		return o.err
	}
	for _, l := range i.batch {
		res := ImportResult{Err: l.Err}
		if l.Err == nil {
			res, o.results = o.results[0], o.results[1:]
		}
		if err := i.answer.Write(resultOf(l.Number, res)); err != nil {
			return err
		}
	}
	return nil
}

func resultOf(line int, res ImportResult) importResult {
	out := importResult{Line: line, Status: "exists"}
	switch {
	case res.Err != nil:
		e := errs.From(res.Err)
		out.Status, out.Code = "invalid", e.Code
		for _, f := range e.Fields {
			out.Errors = append(out.Errors, importError{f.Pointer, f.Code, f.Message})
		}
		return out
	case res.Created:
		out.Status = "created"
	}
	out.ID = ids.Format(IDPrefix, res.ID)
	return out
}

func (h handlers) export(context.Context, *struct{}) (*web.Stream, error) {
	return web.StreamNDJSON(func(ctx context.Context, w *web.RecordWriter) error {
		return h.service.Export(ctx, func(u User) error { return w.Write(viewOf(u)) })
	}), nil
}

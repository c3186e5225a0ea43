package users

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/web"
)

// confirmLimit names the limit on confirmations by client address in web.Config.Limits.
const confirmLimit = "confirm"

const writeScope = "users:write"

// Routes registers the module's operations.
func (m *Module) Routes(api *web.API) {
	h := handlers{m.Service, m.deps.Config.ImportBatch}
	read, write := web.Auth{Scope: "users:read"}, web.Auth{Scope: writeScope}
	web.Register(api, web.Operation{
		ID: "createUser", Method: http.MethodPost, Path: "/v1/users", Tag: "users", Summary: "Create a user",
		Description: "Open to everybody where users.public_sign_up is set, but for metadata, which takes a key.",
		Status:      http.StatusCreated,
		Auth:        web.Auth{Scope: writeScope, Public: m.deps.Config.PublicSignUp}, RateLimit: h.signUpLimit(m.deps.Config),
		Errors: []int{http.StatusForbidden, http.StatusConflict},
	}, h.create)
	web.Register(api, web.Operation{
		ID: "listUsers", Method: http.MethodGet, Path: "/v1/users", Tag: "users", Summary: "List users",
		Description: "Newest first. Deleted users are listed only with status=deleted.", Auth: read,
	}, h.list)
	web.Register(api, web.Operation{
		ID: "getUser", Method: http.MethodGet, Path: "/v1/users/{id}", Tag: "users", Summary: "Read a user",
		Auth: web.Auth{Scope: "users:read", Self: "id"}, Errors: []int{http.StatusNotFound},
	}, h.get)
	web.Register(api, web.Operation{
		ID: "updateUser", Method: http.MethodPatch, Path: "/v1/users/{id}", Tag: "users", Summary: "Change a user",
		Description: "A JSON merge patch (RFC 7396). A session may change its own user's name only. Suspending a user ends " +
			"its sessions before this answers; a new e-mail address is not verified.",
		Auth: web.Auth{Scope: writeScope, Self: "id"}, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}, h.update)
	web.Register(api, web.Operation{
		ID: "deleteUser", Method: http.MethodDelete, Path: "/v1/users/{id}", Tag: "users", Summary: "Delete or erase a user",
		Description: "Softly: the user may be restored, and keeps its e-mail address. With erase=true all that is known of it " +
			"is removed for good; the audit trail keeps the id alone.",
		Auth: write, Errors: []int{http.StatusNotFound},
	}, h.remove)
	web.Register(api, web.Operation{
		ID: "restoreUser", Method: http.MethodPost, Path: "/v1/users/{id}/restore", Tag: "users", Summary: "Restore a deleted user",
		Description: "The user is active again, also one who was suspended before being deleted.",
		Auth:        write, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}, h.restore)
	web.Register(api, web.Operation{
		ID: "setPassword", Method: http.MethodPut, Path: "/v1/users/{id}/password", Tag: "users", Summary: "Set a password",
		Description: "8 to 256 characters, taken verbatim; common ones are refused. All sessions end but the one that makes " +
			"this request.",
		Auth:   web.Auth{Scope: writeScope, Self: "id"},
		Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusServiceUnavailable},
	}, h.setPassword)
	h.tokenRoutes(api)
	web.Register(api, web.Operation{
		ID: "importUsers", Method: http.MethodPost, Path: "/v1/users/import", Tag: "users", Summary: "Import users",
		Description: "One user a line. E-mail addresses that are known already are left as they are, so that an import may be " +
			"run again. Each line is answered by one.",
		Auth: write, Streams: true, Answers: []string{web.NDJSON}, Record: importResult{},
	}, h.importUsers)
	web.Register(api, web.Operation{
		ID: "exportUsers", Method: http.MethodGet, Path: "/v1/users/export", Tag: "users", Summary: "Export users",
		Description: "All users but the deleted, newest first.",
		Auth:        read, Streams: true, Answers: []string{web.NDJSON}, Record: user{},
	}, h.export)
}

func (h handlers) tokenRoutes(api *web.API) {
	write := web.Auth{Scope: writeScope}
	web.Register(api, web.Operation{
		ID: "requestEmailVerification", Method: http.MethodPost, Path: "/v1/users/{id}/email-verifications", Tag: "users",
		Summary:     "Make a token that verifies the e-mail address",
		Description: "For the application to mail. It works once, until expires_at.",
		Status:      http.StatusCreated, Auth: write, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}, h.requestEmailVerification)
	web.Register(api, web.Operation{
		ID: "confirmEmail", Method: http.MethodPost, Path: "/v1/email-verifications/confirm", Tag: "users",
		Summary: "Verify an e-mail address", Auth: web.Auth{Public: true}, RateLimit: confirmLimit,
	}, h.confirmEmail)
	web.Register(api, web.Operation{
		ID: "requestPasswordReset", Method: http.MethodPost, Path: "/v1/password-resets", Tag: "users",
		Summary: "Make a token that sets a new password",
		Description: "For the application to mail. It works once, until expires_at. An address that nobody has is answered alike, " +
			"with a token that never works.",
		Status: http.StatusCreated, Auth: write,
	}, h.requestPasswordReset)
	web.Register(api, web.Operation{
		ID: "confirmPasswordReset", Method: http.MethodPost, Path: "/v1/password-resets/confirm", Tag: "users",
		Summary: "Set a new password", Description: "All sessions end.", Auth: web.Auth{Public: true}, RateLimit: confirmLimit,
		Errors: []int{http.StatusServiceUnavailable},
	}, h.confirmPasswordReset)
}

type handlers struct {
	service *Service
	batch   int // lines of an import per transaction
}

// signUpLimit limits sign-ups by client address where they need no key.
func (handlers) signUpLimit(cfg Config) string {
	if cfg.PublicSignUp {
		return "sign_up"
	}
	return ""
}

// user is a User as the API shows it.
type user struct {
	ID            string      `json:"id" example:"user_01h455vb4pex5vsknk084sn02q"`
	Email         string      `json:"email" example:"ada@example.com"`
	EmailVerified bool        `json:"email_verified"`
	Name          string      `json:"name" example:"Ada Lovelace"`
	Status        string      `json:"status" enum:"active,suspended,deleted"`
	Metadata      web.RawJSON `json:"metadata" doc:"The application's own, at most 16384 bytes."`
	Version       int64       `json:"version" doc:"Counts the changes; the ETag."`
	CreatedAt     time.Time   `json:"created_at"`
	UpdatedAt     time.Time   `json:"updated_at"`
	LastSignInAt  *time.Time  `json:"last_sign_in_at" nullable:"true"`
}

func viewOf(u User) user {
	return user{
		ID: ids.Format(IDPrefix, u.ID), Email: u.Email, EmailVerified: u.EmailVerified, Name: u.Name, Status: string(u.Status),
		Metadata: web.RawJSON(u.Metadata), Version: u.Version, CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt,
		LastSignInAt: u.LastSignInAt,
	}
}

// AppendJSON implements web.JSONAppender.
func (v user) AppendJSON(b []byte) []byte {
	b = append(b, `{"id":"`...)
	b = append(b, v.ID...)
	b = append(b, `","email":`...)
	b = web.AppendString(b, v.Email)
	b = append(b, `,"email_verified":`...)
	b = strconv.AppendBool(b, v.EmailVerified)
	b = append(b, `,"name":`...)
	b = web.AppendString(b, v.Name)
	b = append(b, `,"status":`...)
	b = web.AppendString(b, v.Status)
	b = append(b, `,"metadata":`...)
	b = v.Metadata.AppendJSON(b)
	b = append(b, `,"version":`...)
	b = strconv.AppendInt(b, v.Version, 10)
	b = append(b, `,"created_at":`...)
	b = web.AppendTime(b, v.CreatedAt)
	b = append(b, `,"updated_at":`...)
	b = web.AppendTime(b, v.UpdatedAt)
	b = append(b, `,"last_sign_in_at":`...)
	if v.LastSignInAt == nil {
		return append(b, "null}"...)
	}
	b = web.AppendTime(b, *v.LastSignInAt)
	return append(b, '}')
}

// View is a user as the API shows it, for modules that show it too.
type View struct{ User }

// AppendJSON implements web.JSONAppender.
func (v View) AppendJSON(b []byte) []byte { return viewOf(v.User).AppendJSON(b) }

// parseID reads the id in a path. One of another kind leads nowhere.
func parseID(s string) (uuid.UUID, error) {
	id, err := ids.Parse(IDPrefix, s)
	if err != nil {
		return uuid.Nil, ErrNotFound
	}
	return id, nil
}

type userOutput struct {
	ETag string `header:"ETag"`
	Body user
}

func output(u User) *userOutput { return &userOutput{ETag: web.ETag(u.Version), Body: viewOf(u)} }

type createInput struct {
	Body struct {
		Email    string      `json:"email" doc:"Trimmed; unique without regard to case." example:"ada@example.com"`
		Password *string     `json:"password,omitempty" doc:"8 to 256 characters, taken verbatim."`
		Name     string      `json:"name,omitempty" example:"Ada Lovelace"`
		Metadata web.RawJSON `json:"metadata,omitempty"`
	}
}

func (in *createInput) newUser() NewUser {
	return NewUser{Email: in.Body.Email, Password: in.Body.Password, Name: in.Body.Name, Metadata: json.RawMessage(in.Body.Metadata)}
}

// Check implements web.Checker.
func (in *createInput) Check() error {
	n := in.newUser()
	return n.Validate()
}

type createOutput struct {
	Location string `header:"Location"`
	ETag     string `header:"ETag"`
	Body     user
}

func (h handlers) create(ctx context.Context, in *createInput) (*createOutput, error) {
	if len(in.Body.Metadata) > 0 && !web.CallerFrom(ctx).Has(writeScope) {
		return nil, web.ErrForbidden // who signs up for themselves must not say what the application knows of them
	}
	u, err := h.service.Create(ctx, in.newUser())
	if err != nil {
		return nil, err
	}
	v := viewOf(u)
	return &createOutput{Location: "/v1/users/" + v.ID, ETag: web.ETag(u.Version), Body: v}, nil
}

type getInput struct {
	web.Conditional
	ID string `path:"id" doc:"The user's id."`
}

func (h handlers) get(ctx context.Context, in *getInput) (*userOutput, error) {
	id, err := parseID(in.ID)
	if err != nil {
		return nil, err
	}
	u, err := h.service.ByID(ctx, id)
	if err != nil {
		return nil, err
	}
	out := output(u)
	if err := in.CheckRead(out.ETag); err != nil {
		return nil, err
	}
	return out, nil
}

type listInput struct {
	web.PageParams
	Email        string    `query:"email" maxLength:"254" doc:"The whole address, without regard to case."`
	Status       string    `query:"status" enum:"active,suspended,deleted" doc:"All but the deleted, where it is not given."`
	Query        string    `query:"q" maxLength:"254" doc:"A prefix of the e-mail address or of the name, without regard to case."`
	CreatedAfter time.Time `query:"created_after" doc:"Exclusive."`
}

func (in *listInput) filter() Filter {
	f := Filter{Email: in.Email, Status: Status(in.Status), Query: in.Query, Limit: in.Limit + 1} // one more tells whether there are more
	if !in.CreatedAfter.IsZero() {
		f.CreatedAfter = &in.CreatedAfter
	}
	return f
}

type listOutput struct {
	web.PageHeaders
	Body listOutputBody
}

type listOutputBody struct {
	Users      []user  `json:"users" nullable:"false"`
	NextCursor *string `json:"next_cursor" nullable:"true" doc:"For the next page; null on the last."`
}

// AppendJSON implements web.JSONAppender.
func (v listOutputBody) AppendJSON(b []byte) []byte {
	b = append(b, `{"users":[`...)
	for i, u := range v.Users {
		if i > 0 {
			b = append(b, ',')
		}
		b = u.AppendJSON(b)
	}
	b = append(b, `],"next_cursor":`...)
	if v.NextCursor == nil {
		return append(b, "null}"...)
	}
	b = web.AppendString(b, *v.NextCursor)
	return append(b, '}')
}

// listName binds cursors to this list.
const listName = "users"

func (h handlers) list(ctx context.Context, in *listInput) (*listOutput, error) {
	f := in.filter()
	filters := []any{in.Email, in.Status, in.Query, in.CreatedAfter}
	var after Position
	more, err := web.DecodeCursor(ctx, listName, filters, in.Cursor, &after)
	if err != nil {
		return nil, err
	}
	if more {
		f.After = &after
	}
	page, err := h.service.List(ctx, f)
	if err != nil {
		return nil, err
	}
	out := &listOutput{}
	if len(page) > in.Limit {
		page = page[:in.Limit]
		last := page[in.Limit-1]
		cursor, err := web.EncodeCursor(ctx, listName, filters, Position{last.CreatedAt, last.ID})
		if err != nil {
			return nil, err
		}
		out.Body.NextCursor, out.PageHeaders = &cursor, web.NextPage(ctx, cursor)
	}
	out.Body.Users = make([]user, len(page))
	for i, u := range page {
		out.Body.Users[i] = viewOf(u)
	}
	return out, nil
}

type updateInput struct {
	web.Conditional
	ID   string `path:"id" doc:"The user's id."`
	Body struct {
		Email    web.Optional[string]      `json:"email,omitzero" nullable:"false"`
		Name     web.Optional[string]      `json:"name,omitzero" doc:"null empties it."`
		Status   web.Optional[string]      `json:"status,omitzero" nullable:"false" enum:"active,suspended"`
		Metadata web.Optional[web.RawJSON] `json:"metadata,omitzero" doc:"Merged into what there is; null empties it."`
	}
}

// Check implements web.Checker.
func (in *updateInput) Check() error { return in.patch().Validate() }

func (in *updateInput) patch() Patch {
	p := Patch{Email: in.Body.Email.Ptr(), Name: in.Body.Name.Ptr(), Metadata: json.RawMessage(in.Body.Metadata.Value)}
	if in.Body.Name.Null {
		p.Name = new(string)
	}
	if s := in.Body.Status.Ptr(); s != nil {
		p.Status = (*Status)(s)
	}
	p.ClearMetadata = in.Body.Metadata.Null
	return p
}

func (h handlers) update(ctx context.Context, in *updateInput) (*userOutput, error) {
	id, err := parseID(in.ID)
	if err != nil {
		return nil, err
	}
	if web.CallerFrom(ctx).Kind == web.Session && (in.Body.Email.Set || in.Body.Status.Set || in.Body.Metadata.Set) {
		return nil, web.ErrForbidden
	}
	u, err := h.service.Update(ctx, id, in.patch(), ifMatch(in.Conditional))
	if err != nil {
		return nil, err
	}
	return output(u), nil
}

func ifMatch(c web.Conditional) Guard {
	return func(u User) error { return c.CheckVersion(u.Version) }
}

type removeInput struct {
	web.Conditional
	ID    string `path:"id" doc:"The user's id."`
	Erase bool   `query:"erase" doc:"Remove all that is known of the user, for good."`
}

func (h handlers) remove(ctx context.Context, in *removeInput) (*struct{}, error) {
	id, err := parseID(in.ID)
	if err != nil {
		return nil, err
	}
	if in.Erase {
		return nil, h.service.Erase(ctx, id, ifMatch(in.Conditional))
	}
	return nil, h.service.Delete(ctx, id, ifMatch(in.Conditional))
}

type restoreInput struct {
	web.Conditional
	ID string `path:"id" doc:"The user's id."`
}

func (h handlers) restore(ctx context.Context, in *restoreInput) (*userOutput, error) {
	id, err := parseID(in.ID)
	if err != nil {
		return nil, err
	}
	u, err := h.service.Restore(ctx, id, ifMatch(in.Conditional))
	if err != nil {
		return nil, err
	}
	return output(u), nil
}

type setPasswordInput struct {
	ID   string `path:"id" doc:"The user's id."`
	Body struct {
		Password        string  `json:"password" doc:"8 to 256 characters, taken verbatim."`
		CurrentPassword *string `json:"current_password,omitempty" maxLength:"4096" doc:"Required of a session; verified where it is given."`
	}
}

func (h handlers) setPassword(ctx context.Context, in *setPasswordInput) (*struct{}, error) {
	id, err := parseID(in.ID)
	if err != nil {
		return nil, err
	}
	caller := web.CallerFrom(ctx)
	if caller.Kind == web.Session && in.Body.CurrentPassword == nil {
		return nil, errs.ErrInvalid.With(errs.Field{Pointer: "/current_password", Code: "required", Message: "Is required."})
	}
	return nil, h.service.SetPassword(ctx, id, NewPassword{
		Password: in.Body.Password, Current: in.Body.CurrentPassword, Keep: caller.SessionID,
	})
}

type userInput struct {
	ID string `path:"id" doc:"The user's id."`
}

type mailedOutput struct {
	Body struct {
		Token     string    `json:"token" doc:"To be mailed to the user. It is shown this once."`
		ExpiresAt time.Time `json:"expires_at"`
	}
}

func mailed(t MailedToken, err error) (*mailedOutput, error) {
	if err != nil {
		return nil, err
	}
	out := &mailedOutput{}
	out.Body.Token, out.Body.ExpiresAt = t.Token, t.ExpiresAt.UTC()
	return out, nil
}

func (h handlers) requestEmailVerification(ctx context.Context, in *userInput) (*mailedOutput, error) {
	id, err := parseID(in.ID)
	if err != nil {
		return nil, err
	}
	return mailed(h.service.RequestEmailVerification(ctx, id))
}

type resetInput struct {
	Body struct {
		Email string `json:"email" maxLength:"254" example:"ada@example.com"`
	}
}

func (h handlers) requestPasswordReset(ctx context.Context, in *resetInput) (*mailedOutput, error) {
	return mailed(h.service.RequestPasswordReset(ctx, in.Body.Email))
}

type confirmEmailInput struct {
	Body struct {
		Token string `json:"token" maxLength:"4096"`
	}
}

func (h handlers) confirmEmail(ctx context.Context, in *confirmEmailInput) (*userOutput, error) {
	u, err := h.service.ConfirmEmail(ctx, in.Body.Token)
	if err != nil {
		return nil, err
	}
	return output(u), nil
}

type confirmResetInput struct {
	Body struct {
		Token    string `json:"token" maxLength:"4096"`
		Password string `json:"password" doc:"8 to 256 characters, taken verbatim."`
	}
}

func (h handlers) confirmPasswordReset(ctx context.Context, in *confirmResetInput) (*struct{}, error) {
	return nil, h.service.ResetPassword(ctx, in.Body.Token, in.Body.Password)
}

package sessions

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/web"
)

// signInLimit names the limit on sign-ins by client address in web.Config.Limits.
const signInLimit = "sign_in"

// Routes registers the module's operations.
func (m *Module) Routes(api *web.API) {
	h := handlers{m.Service}
	web.Register(api, web.Operation{
		ID: "signIn", Method: http.MethodPost, Path: "/v1/sessions", Tag: "sessions", Summary: "Sign in",
		Description: "Wrong e-mail addresses and wrong passwords are answered alike, in the same time. Attempts are limited " +
			"by client address, and failures by account.",
		Status: http.StatusCreated, Auth: web.Auth{Public: true}, RateLimit: signInLimit,
		Errors: []int{http.StatusUnauthorized, http.StatusForbidden},
	}, h.signIn)
	web.Register(api, web.Operation{
		ID: "getCurrentSession", Method: http.MethodGet, Path: "/v1/sessions/current", Tag: "sessions",
		Summary:     "Check the session",
		Description: "What an application calls on every request: whose session the token belongs to.",
		Auth:        web.Auth{Self: "*"},
	}, h.current)
	web.Register(api, web.Operation{
		ID: "introspectSession", Method: http.MethodPost, Path: "/v1/sessions/introspect", Tag: "sessions",
		Summary:     "Introspect a token",
		Description: "Answers in the form of RFC 7662. Counts as use of the session.",
		Auth:        web.Auth{Scope: "sessions:read"},
	}, h.introspect)
	web.Register(api, web.Operation{
		ID: "rotateCurrentSession", Method: http.MethodPost, Path: "/v1/sessions/current/rotate", Tag: "sessions",
		Summary: "Rotate the token", Description: "The session goes on with a new token; the old one is dead when this answers.",
		Auth: web.Auth{Self: "*"},
	}, h.rotate)
	web.Register(api, web.Operation{
		ID: "signOut", Method: http.MethodDelete, Path: "/v1/sessions/current", Tag: "sessions", Summary: "Sign out",
		Auth: web.Auth{Self: "*"},
	}, h.signOut)
	web.Register(api, web.Operation{
		ID: "listUserSessions", Method: http.MethodGet, Path: "/v1/users/{id}/sessions", Tag: "sessions",
		Summary: "List a user's sessions", Description: "Live sessions, newest first; none for a user who does not exist.",
		Auth: web.Auth{Scope: "sessions:read", Self: "id"},
	}, h.list)
	web.Register(api, web.Operation{
		ID: "revokeSession", Method: http.MethodDelete, Path: "/v1/sessions/{id}", Tag: "sessions",
		Summary: "Revoke a session", Description: "Revoking a session that has ended changes nothing.",
		Auth: web.Auth{Scope: "sessions:write", Self: "*"},
	}, h.revoke)
	web.Register(api, web.Operation{
		ID: "revokeUserSessions", Method: http.MethodDelete, Path: "/v1/users/{id}/sessions", Tag: "sessions",
		Summary: "Revoke a user's sessions", Auth: web.Auth{Scope: "sessions:write", Self: "id"},
	}, h.revokeAll)
}

type handlers struct{ service *Service }

// session is a Session as the API shows it.
type session struct {
	ID            string    `json:"id" example:"ses_01h455vb4pex5vsknk084sn02q"`
	UserID        string    `json:"user_id" example:"user_01h455vb4pex5vsknk084sn02q"`
	CreatedAt     time.Time `json:"created_at"`
	LastSeenAt    time.Time `json:"last_seen_at" doc:"The last use, as far as it has been noted: at most once in sessions.seen_interval."`
	ExpiresAt     time.Time `json:"expires_at" doc:"When the session ends, whatever happens."`
	IdleExpiresAt time.Time `json:"idle_expires_at" doc:"When it ends unless it is used before."`
	IP            string    `json:"ip" doc:"The client's address at sign-in."`
	UserAgent     string    `json:"user_agent" doc:"The client's User-Agent at sign-in."`
	Current       bool      `json:"current" doc:"Whether it is the session that makes this request."`
}

func viewOf(s Session, current uuid.UUID) session {
	return session{
		ID: ids.Format(IDPrefix, s.ID), UserID: ids.Format(userIDPrefix, s.UserID),
		CreatedAt: s.CreatedAt.UTC(), LastSeenAt: s.LastSeenAt.UTC(),
		ExpiresAt: s.ExpiresAt.UTC(), IdleExpiresAt: s.IdleExpiresAt.UTC(),
		IP: s.IP, UserAgent: s.UserAgent, Current: s.ID == current,
	}
}

// AppendJSON implements web.JSONAppender.
func (v session) AppendJSON(b []byte) []byte {
	b = append(b, `{"id":"`...)
	b = append(b, v.ID...)
	b = append(b, `","user_id":"`...)
	b = append(b, v.UserID...)
	b = append(b, `","created_at":`...)
	b = web.AppendTime(b, v.CreatedAt)
	b = append(b, `,"last_seen_at":`...)
	b = web.AppendTime(b, v.LastSeenAt)
	b = append(b, `,"expires_at":`...)
	b = web.AppendTime(b, v.ExpiresAt)
	b = append(b, `,"idle_expires_at":`...)
	b = web.AppendTime(b, v.IdleExpiresAt)
	b = append(b, `,"ip":`...)
	b = web.AppendString(b, v.IP)
	b = append(b, `,"user_agent":`...)
	b = web.AppendString(b, v.UserAgent)
	b = append(b, `,"current":`...)
	b = strconv.AppendBool(b, v.Current)
	return append(b, '}')
}

// userView is a user as the users module shows it; this module passes it on.
type userView struct{ web.JSONAppender }

// MarshalJSON implements json.Marshaler.
func (v userView) MarshalJSON() ([]byte, error) { return v.AppendJSON(nil), nil }

// Schema implements huma.SchemaProvider with the schema that the users module registers.
func (userView) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Ref: "#/components/schemas/User"}
}

type signInInput struct {
	Body struct {
		Email    string `json:"email" maxLength:"254" example:"ada@example.com"`
		Password string `json:"password" maxLength:"4096"`
	}
}

type signInOutput struct {
	Body struct {
		Session session  `json:"session"`
		Token   string   `json:"token" doc:"The credential of this session. It is shown this once."`
		User    userView `json:"user"`
	}
}

func (h handlers) signIn(ctx context.Context, in *signInInput) (*signInOutput, error) {
	made, err := h.service.SignIn(ctx, in.Body.Email, in.Body.Password)
	if err != nil {
		return nil, err
	}
	out := &signInOutput{}
	out.Body.Session = viewOf(made.Session, made.Session.ID)
	out.Body.Token, out.Body.User = made.Token, userView{made.User}
	return out, nil
}

type currentOutput struct{ Body currentOutputBody }

type currentOutputBody struct {
	Session session  `json:"session"`
	User    userView `json:"user"`
}

// AppendJSON implements web.JSONAppender.
func (v currentOutputBody) AppendJSON(b []byte) []byte {
	b = append(b, `{"session":`...)
	b = v.Session.AppendJSON(b)
	b = append(b, `,"user":`...)
	b = v.User.AppendJSON(b)
	return append(b, '}')
}

func (h handlers) current(ctx context.Context, _ *struct{}) (*currentOutput, error) {
	v, err := current(ctx)
	if err != nil {
		return nil, err
	}
	return &currentOutput{currentOutputBody{viewOf(v.Session, v.Session.ID), userView{v.User}}}, nil
}

type introspectInput struct {
	Body struct {
		Token string `json:"token" maxLength:"4096"`
	}
}

// introspection is what RFC 7662, section 2.2, calls an introspection response.
type introspection struct {
	Active   bool      `json:"active"`
	Subject  string    `json:"sub,omitempty" doc:"The user's id."`
	Session  string    `json:"sid,omitempty" doc:"The session's id."`
	IssuedAt int64     `json:"iat,omitempty" doc:"When the session was made, in seconds since 1970."`
	Expires  int64     `json:"exp,omitempty" doc:"When it ends, whatever happens, in seconds since 1970. It may end sooner."`
	User     *userView `json:"user,omitempty"`
}

type introspectOutput struct{ Body introspection }

func (h handlers) introspect(ctx context.Context, in *introspectInput) (*introspectOutput, error) {
	v, err := h.service.Verify(ctx, in.Body.Token)
	if errors.Is(err, ErrTokenInvalid) {
		return &introspectOutput{}, nil
	}
	if err != nil {
		return nil, err
	}
	return &introspectOutput{introspection{
		Active: true, Subject: ids.Format(userIDPrefix, v.Session.UserID), Session: ids.Format(IDPrefix, v.Session.ID),
		IssuedAt: v.Session.CreatedAt.Unix(), Expires: v.Session.ExpiresAt.Unix(), User: &userView{v.User},
	}}, nil
}

type rotateOutput struct {
	Body struct {
		Session session `json:"session"`
		Token   string  `json:"token" doc:"The new credential. It is shown this once."`
	}
}

func (h handlers) rotate(ctx context.Context, _ *struct{}) (*rotateOutput, error) {
	v, err := current(ctx)
	if err != nil {
		return nil, err
	}
	rotated, token, err := h.service.Rotate(ctx, v)
	if err != nil {
		return nil, err
	}
	out := &rotateOutput{}
	out.Body.Session, out.Body.Token = viewOf(rotated, rotated.ID), token
	return out, nil
}

func (h handlers) signOut(ctx context.Context, _ *struct{}) (*struct{}, error) {
	caller := web.CallerFrom(ctx)
	return nil, h.service.Revoke(ctx, caller.SessionID, caller.UserID)
}

type listInput struct {
	ID string `path:"id" doc:"The user's id."`
}

type listOutput struct {
	Body struct {
		Sessions []session `json:"sessions" nullable:"false"`
	}
}

func (h handlers) list(ctx context.Context, in *listInput) (*listOutput, error) {
	userID, err := ids.Parse(userIDPrefix, in.ID)
	if err != nil {
		return nil, err
	}
	list, err := h.service.List(ctx, userID)
	if err != nil {
		return nil, err
	}
	out := &listOutput{}
	out.Body.Sessions = make([]session, len(list))
	for i, s := range list {
		out.Body.Sessions[i] = viewOf(s, web.CallerFrom(ctx).SessionID)
	}
	return out, nil
}

type revokeInput struct {
	ID string `path:"id" doc:"The session's id."`
}

func (h handlers) revoke(ctx context.Context, in *revokeInput) (*struct{}, error) {
	id, err := ids.Parse(IDPrefix, in.ID)
	if err != nil {
		return nil, err
	}
	return nil, h.service.Revoke(ctx, id, web.CallerFrom(ctx).UserID) // an API key has no user, and may end anybody's
}

type revokeAllInput struct {
	ID            string `path:"id" doc:"The user's id."`
	ExceptCurrent bool   `query:"except_current" doc:"Keep the session that makes this request."`
}

type revokeAllOutput struct {
	Body struct {
		Revoked int `json:"revoked" doc:"How many sessions ended."`
	}
}

func (h handlers) revokeAll(ctx context.Context, in *revokeAllInput) (*revokeAllOutput, error) {
	userID, err := ids.Parse(userIDPrefix, in.ID)
	if err != nil {
		return nil, err
	}
	var except uuid.UUID
	if in.ExceptCurrent {
		caller := web.CallerFrom(ctx)
		if caller.Kind != web.Session {
			return nil, errs.ErrInvalid.With(errs.Field{
				Param: "except_current", Code: "no_session", Message: "is for sessions; an API key has none to keep",
			})
		}
		except = caller.SessionID
	}
	n, err := h.service.RevokeAll(ctx, userID, except)
	if err != nil {
		return nil, err
	}
	out := &revokeAllOutput{}
	out.Body.Revoked = n
	return out, nil
}

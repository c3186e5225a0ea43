package preferences

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/web"
)

// Routes registers the module's operations.
func (m *Module) Routes(api *web.API) {
	h := handlers{m.Service}
	h.definitionRoutes(api)
	const path = "/v1/users/{id}/preferences"
	read := web.Auth{Scope: "preferences:read", Self: "id"}
	write := web.Auth{Scope: "preferences:write", Self: "id"}
	web.Register(api, web.Operation{
		ID: "getPreferences", Method: http.MethodGet, Path: path, Tag: "preferences", Auth: read,
		Summary:     "Read a user's preferences",
		Description: "The values that hold for the user: the defaults, overlaid with what the user has set.",
	}, h.get)
	web.Register(api, web.Operation{
		ID: "updatePreferences", Method: http.MethodPatch, Path: path, Tag: "preferences", Auth: write,
		Summary: "Change a user's preferences",
		Description: "Merges a patch into the values that hold, all or nothing. null returns a preference to its default. " +
			"Answers with the preferences that hold now.",
	}, h.patch)
	web.Register(api, web.Operation{
		ID: "setPreference", Method: http.MethodPut, Path: path + "/{key}", Tag: "preferences", Auth: write,
		Summary:     "Set one preference of a user",
		Description: "Replaces the value. Answers with the preferences that hold now.",
	}, h.put)
	web.Register(api, web.Operation{
		ID: "resetPreference", Method: http.MethodDelete, Path: path + "/{key}", Tag: "preferences", Auth: write,
		Summary: "Return one preference of a user to its default",
	}, h.reset)
}

func (h handlers) definitionRoutes(api *web.API) {
	const path = "/v1/preference-definitions"
	define := web.Auth{Scope: "preferences:define"}
	web.Register(api, web.Operation{
		ID: "listPreferenceDefinitions", Method: http.MethodGet, Path: path, Tag: "preferences", Auth: web.Auth{Any: true},
		Summary: "List what may be preferred", Description: "There are at most 256 definitions; all are listed.",
	}, h.listDefinitions)
	web.Register(api, web.Operation{
		ID: "getPreferenceDefinition", Method: http.MethodGet, Path: path + "/{key}", Tag: "preferences", Auth: web.Auth{Any: true},
		Summary: "Read a definition",
	}, h.getDefinition)
	web.Register(api, web.Operation{
		ID: "putPreferenceDefinition", Method: http.MethodPut, Path: path + "/{key}", Tag: "preferences", Auth: define,
		Creates: true, Errors: []int{http.StatusConflict},
		Summary: "Create or replace a definition",
		Description: "A schema that stored values do not satisfy is refused with their number. A changed default " +
			"holds at once for everybody who has set nothing.",
	}, h.putDefinition)
	web.Register(api, web.Operation{
		ID: "deletePreferenceDefinition", Method: http.MethodDelete, Path: path + "/{key}", Tag: "preferences", Auth: define,
		Errors:  []int{http.StatusConflict},
		Summary: "Delete a definition", Description: "Refused, with their number, while users have set the preference.",
	}, h.deleteDefinition)
}

type handlers struct{ service *Service }

// definition is a Definition as the API shows it.
type definition struct {
	Key         string          `json:"key" doc:"Names the preference in paths, pointers and programs." example:"theme"`
	Schema      web.RawJSON     `json:"schema" doc:"JSON Schema 2020-12 that every value satisfies."`
	Default     json.RawMessage `json:"default" doc:"Holds for users who have set nothing."`
	Description string          `json:"description" doc:"What the preference is for."`
	Version     int64           `json:"version" doc:"Counts the changes."`
	CreatedAt   time.Time       `json:"created_at"`
	UpdatedAt   time.Time       `json:"updated_at"`
}

func viewOf(d Definition) definition {
	return definition{
		Key: d.Key, Schema: web.RawJSON(d.Schema), Default: d.Default, Description: d.Description,
		Version: d.Version, CreatedAt: d.CreatedAt.UTC(), UpdatedAt: d.UpdatedAt.UTC(),
	}
}

type definitionOutput struct {
	Status int
	ETag   string `header:"ETag"`
	Body   definition
}

type listDefinitionsInput struct{ web.Conditional }

type listDefinitionsOutput struct {
	ETag string `header:"ETag"`
	Body struct {
		Definitions []definition `json:"definitions" doc:"All definitions, in the order of their keys."`
	}
}

func (h handlers) listDefinitions(ctx context.Context, in *listDefinitionsInput) (*listDefinitionsOutput, error) {
	catalogue, err := h.service.Definitions(ctx)
	if err != nil {
		return nil, err
	}
	out := &listDefinitionsOutput{ETag: etag(catalogue.Tag)}
	if err := in.CheckRead(out.ETag); err != nil {
		return nil, err
	}
	out.Body.Definitions = make([]definition, len(catalogue.Definitions))
	for i, d := range catalogue.Definitions {
		out.Body.Definitions[i] = viewOf(d)
	}
	return out, nil
}

type getDefinitionInput struct {
	web.Conditional
	Key string `path:"key" maxLength:"64"`
}

func (h handlers) getDefinition(ctx context.Context, in *getDefinitionInput) (*definitionOutput, error) {
	catalogue, err := h.service.Definitions(ctx)
	if err != nil {
		return nil, err
	}
	d, ok := catalogue.ByKey(in.Key)
	if !ok {
		return nil, ErrNotDefined
	}
	tag := web.ETag(d.Version)
	if err := in.CheckRead(tag); err != nil {
		return nil, err
	}
	return &definitionOutput{Status: http.StatusOK, ETag: tag, Body: viewOf(d)}, nil
}

type putDefinitionInput struct {
	web.Conditional
	Key  string `path:"key" doc:"Matches ^[a-z][a-z0-9_.-]{0,63}$."`
	Body struct {
		Schema      web.RawJSON     `json:"schema" doc:"JSON Schema 2020-12, complete in itself; at most 16384 bytes. Formats are asserted, patterns have RE2's syntax."`
		Default     json.RawMessage `json:"default" doc:"Must satisfy the schema; at most 8192 bytes."`
		Description string          `json:"description,omitempty" maxLength:"1000"`
	}
}

func (h handlers) putDefinition(ctx context.Context, in *putDefinitionInput) (*definitionOutput, error) {
	d, created, err := h.service.PutDefinition(ctx, in.Key, NewDefinition{
		Schema: json.RawMessage(in.Body.Schema), Default: in.Body.Default, Description: in.Body.Description,
	}, definitionGuard(in.Conditional))
	if err != nil {
		return nil, err
	}
	out := &definitionOutput{Status: http.StatusOK, ETag: web.ETag(d.Version), Body: viewOf(d)}
	if created {
		out.Status = http.StatusCreated
	}
	return out, nil
}

func (h handlers) deleteDefinition(ctx context.Context, in *getDefinitionInput) (*struct{}, error) {
	return nil, h.service.DeleteDefinition(ctx, in.Key, definitionGuard(in.Conditional))
}

func definitionGuard(c web.Conditional) DefinitionGuard {
	return func(version int64) error {
		if version == 0 {
			return c.CheckWrite("")
		}
		return c.CheckVersion(version)
	}
}

// preferencesBody is a user's preferences as one JSON object: the document that PATCH patches. Rendering it takes no
// reflection: values are stored as they are answered.
type preferencesBody struct {
	Preferences
	sources bool
}

// AppendJSON implements web.JSONAppender.
func (p preferencesBody) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	members := len(b)
	for e := range p.All {
		if len(b) > members {
			b = append(b, ',')
		}
		b = web.AppendString(b, e.Key)
		b = append(b, ':')
		if p.sources {
			b = append(b, `{"value":`...)
			b = append(b, e.Value...)
			b = append(b, `,"source":"`...)
			b = append(b, e.Source...)
			b = append(b, `"}`...)
		} else {
			b = append(b, e.Value...)
		}
	}
	return append(b, '}')
}

// Schema implements huma.SchemaProvider.
func (preferencesBody) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Description: "Every defined preference by its key: its value or, with source=true, an object of its value and its source.",
		AnyOf: []*huma.Schema{
			{Type: huma.TypeObject, AdditionalProperties: &huma.Schema{Description: "The value that holds."}},
			{Type: huma.TypeObject, AdditionalProperties: &huma.Schema{
				Type:     huma.TypeObject,
				Required: []string{"value", "source"},
				Properties: map[string]*huma.Schema{
					"value":  {Description: "The value that holds."},
					"source": {Type: huma.TypeString, Enum: []any{string(FromDefault), string(FromUser)}},
				},
				AdditionalProperties: false,
			}},
		},
	}
}

type preferencesOutput struct {
	ETag string `header:"ETag"`
	Body preferencesBody
}

func output(p Preferences, sources bool) *preferencesOutput {
	return &preferencesOutput{ETag: etag(p.Tag), Body: preferencesBody{p, sources}}
}

// etag is the entity tag of what has a tag in place of a version.
func etag(tag string) string { return `"` + tag + `"` }

type getInput struct {
	web.Conditional
	ID     string `path:"id" doc:"The user."`
	Source bool   `query:"source" doc:"Whether to tell which values are defaults and which the user's."`
}

func (h handlers) get(ctx context.Context, in *getInput) (*preferencesOutput, error) {
	userID, err := ids.Parse(userIDPrefix, in.ID)
	if err != nil {
		return nil, err
	}
	p, err := h.service.Of(ctx, userID)
	if err != nil {
		return nil, err
	}
	out := output(p, in.Source)
	if err := in.CheckRead(out.ETag); err != nil {
		return nil, err
	}
	return out, nil
}

type patchInput struct {
	web.Conditional
	ID   string `path:"id" doc:"The user."`
	Body patchBody
}

// patchBody is a merge patch by keys.
type patchBody map[string]json.RawMessage

// Schema implements huma.SchemaProvider.
func (patchBody) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type:                 huma.TypeObject,
		Description:          "JSON Merge Patch (RFC 7396) on the user's preferences; null returns a preference to its default.",
		AdditionalProperties: &huma.Schema{},
	}
}

func (h handlers) patch(ctx context.Context, in *patchInput) (*preferencesOutput, error) {
	userID, err := ids.Parse(userIDPrefix, in.ID)
	if err != nil {
		return nil, err
	}
	p, err := h.service.Patch(ctx, userID, in.Body, guard(in.Conditional))
	if err != nil {
		return nil, err
	}
	return output(p, false), nil
}

type putPreferenceInput struct {
	web.Conditional
	ID   string `path:"id" doc:"The user."`
	Key  string `path:"key" maxLength:"64"`
	Body struct {
		Value json.RawMessage `json:"value" doc:"Must satisfy the definition's schema; null is a value like any other."`
	}
}

func (h handlers) put(ctx context.Context, in *putPreferenceInput) (*preferencesOutput, error) {
	userID, err := ids.Parse(userIDPrefix, in.ID)
	if err != nil {
		return nil, err
	}
	p, err := h.service.Put(ctx, userID, in.Key, in.Body.Value, guard(in.Conditional))
	if err != nil {
		return nil, err
	}
	return output(p, false), nil
}

type resetInput struct {
	web.Conditional
	ID  string `path:"id" doc:"The user."`
	Key string `path:"key" maxLength:"64"`
}

type resetOutput struct {
	ETag string `header:"ETag"`
}

func (h handlers) reset(ctx context.Context, in *resetInput) (*resetOutput, error) {
	userID, err := ids.Parse(userIDPrefix, in.ID)
	if err != nil {
		return nil, err
	}
	p, err := h.service.Reset(ctx, userID, in.Key, guard(in.Conditional))
	if err != nil {
		return nil, err
	}
	return &resetOutput{ETag: etag(p.Tag)}, nil
}

func guard(c web.Conditional) Guard {
	return func(tag string) error { return c.CheckWrite(etag(tag)) }
}

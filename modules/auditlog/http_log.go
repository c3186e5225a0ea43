package auditlog

import (
	"context"
	"errors"
	"net/http"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/strata-accounts/strata/platform/web"
)

// logRoutes registers the operations of the sealed log.
func (h handlers) logRoutes(api *web.API) {
	web.Register(api, web.Operation{
		ID: "getAuditCheckpoint", Method: http.MethodGet, Path: "/v1/audit-log/checkpoint", Tag: "auditlog",
		Summary: "Get the newest checkpoint",
		Description: "What the log's key has signed: how many events are sealed, and their root hash. Keep checkpoints where nobody who " +
			"can write to the database can reach them.",
		Auth: web.Auth{Scope: "audit:read"}, Errors: []int{http.StatusNotFound},
	}, h.checkpoint)
	web.Register(api, web.Operation{
		ID: "proveAuditEvent", Method: http.MethodGet, Path: "/v1/audit-log/proof", Tag: "auditlog",
		Summary: "Prove that an event is in the log",
		Description: "An inclusion proof as in RFC 6962, section 2.1.1. An event is sealed within a second of being recorded, as a rule: " +
			"a long transaction delays it.",
		Auth: web.Auth{Scope: "audit:read"}, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}, h.inclusion)
	web.Register(api, web.Operation{
		ID: "proveAuditConsistency", Method: http.MethodGet, Path: "/v1/audit-log/consistency", Tag: "auditlog",
		Summary:     "Prove that the log only grew",
		Description: "A consistency proof as in RFC 6962, section 2.1.2, between two sizes of the log.",
		Auth:        web.Auth{Scope: "audit:read"},
	}, h.consistency)
}

type checkpointOutput struct {
	Body struct {
		Origin     string `json:"origin" doc:"The log's name."`
		Size       int64  `json:"size" doc:"How many events are sealed."`
		RootHash   string `json:"root_hash" doc:"Base64 of the Merkle tree's root."`
		Checkpoint string `json:"checkpoint" doc:"The signed note (c2sp.org/tlog-checkpoint) that says so."`
		PublicKey  string `json:"public_key" doc:"The key that verifies it (golang.org/x/mod/sumdb/note). Learn it from elsewhere once."`
	}
}

func (h handlers) checkpoint(ctx context.Context, _ *struct{}) (*checkpointOutput, error) {
	c, err := h.log.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	out := &checkpointOutput{}
	out.Body.Origin, out.Body.Size, out.Body.RootHash = c.Origin, c.Size, c.Root.String()
	out.Body.Checkpoint, out.Body.PublicKey = c.Note, h.log.Public()
	return out, nil
}

type inclusionInput struct {
	Event string `query:"event" required:"true" maxLength:"100" doc:"The event's id."`
	Size  int64  `query:"size" minimum:"0" doc:"The size of the log in which to prove it; 0 or absent: the newest."`
}

type inclusionOutput struct {
	Body struct {
		LeafIndex  int64    `json:"leaf_index" doc:"The event's place in the log, from 0."`
		Size       int64    `json:"size"`
		Leaf       []byte   `json:"leaf,omitempty" doc:"Base64 of the event's canonical form; absent once retention has dropped the event."`
		LeafHash   string   `json:"leaf_hash" doc:"Base64 of SHA-256(0x00 || leaf)."`
		RootHash   string   `json:"root_hash" doc:"Base64 of the root of the tree of this size."`
		Hashes     []string `json:"hashes" nullable:"false" doc:"Base64 of the proof's hashes, from the leaf up."`
		Checkpoint string   `json:"checkpoint,omitempty" doc:"The signed note of exactly this size, where there is one."`
	}
}

func (h handlers) inclusion(ctx context.Context, in *inclusionInput) (*inclusionOutput, error) {
	id, err := parseEvent("event", in.Event)
	if err != nil {
		return nil, err
	}
	p, err := h.log.Inclusion(ctx, id, in.Size)
	if err != nil {
		return nil, err
	}
	out := &inclusionOutput{}
	out.Body.LeafIndex, out.Body.Size, out.Body.Checkpoint = p.Index, p.Size, p.Note
	out.Body.LeafHash, out.Body.RootHash, out.Body.Hashes = p.Leaf.String(), p.Root.String(), hashStrings(p.Hashes)
	e, err := h.service.ByID(ctx, id)
	if errors.Is(err, ErrNotFound) { // dropped by retention
		return out, nil
	}
	out.Body.Leaf = e.Leaf()
	return out, err
}

type consistencyInput struct {
	From int64 `query:"from" required:"true" minimum:"1" doc:"The smaller size."`
	To   int64 `query:"to" minimum:"0" doc:"The larger size; 0 or absent: the newest."`
}

type consistencyOutput struct {
	Body struct {
		From         int64    `json:"from"`
		To           int64    `json:"to"`
		FromRootHash string   `json:"from_root_hash" doc:"Base64 of the root of the smaller tree."`
		ToRootHash   string   `json:"to_root_hash" doc:"Base64 of the root of the larger tree."`
		Hashes       []string `json:"hashes" nullable:"false" doc:"Base64 of the proof's hashes."`
	}
}

func (h handlers) consistency(ctx context.Context, in *consistencyInput) (*consistencyOutput, error) {
	p, err := h.log.Consistency(ctx, in.From, in.To)
	if err != nil {
		return nil, err
	}
	out := &consistencyOutput{}
	out.Body.From, out.Body.To = p.From, p.To
	out.Body.FromRootHash, out.Body.ToRootHash, out.Body.Hashes = p.FromRoot.String(), p.ToRoot.String(), hashStrings(p.Hashes)
	return out, nil
}

func hashStrings(hashes []tlog.Hash) []string {
	all := make([]string, len(hashes))
	for i, h := range hashes {
		all[i] = h.String()
	}
	return all
}

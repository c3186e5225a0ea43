package auditlog

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/web"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

const (
	readKey  = "sk_reads_audit_0123456789"
	writeKey = "sk_writes_audit_0123456789"
)

// tokenOf stands for the sessions module: a token names its user.
type tokenOf struct{}

func (tokenOf) VerifySession(_ context.Context, token string) (userID, sessionID uuid.UUID, err error) {
	userID, err = uuid.Parse(strings.TrimPrefix(token, web.SessionTokenPrefix))
	if err != nil {
		return userID, sessionID, errs.New(errs.Unauthenticated, "unknown", "Unknown.")
	}
	return userID, userID, nil
}

type api struct {
	*webtest.Client
	*Module
	db *db.DB
}

func newAPI(t testing.TB, open func(*db.DB) Repository) api {
	t.Helper()
	d := openDB(t)
	keys, err := OpenKeys(KeyConfig{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	m := New(Deps{
		DB: d, Repository: open(d), Keys: keys, Log: slog.New(slog.DiscardHandler),
		Config: Config{SealInterval: 50 * time.Millisecond, SealBatch: 1000, SealLagWarning: time.Minute},
	})
	s := webtest.NewServer(t, d, func(c *web.Config, deps *web.Deps) {
		c.Keys = []web.APIKey{webtest.Key("reader", readKey, "audit:read"), webtest.Key("writer", writeKey, "audit:write")}
		deps.Sessions = tokenOf{}
	})
	m.Routes(s.API())
	return api{webtest.New(t, s), m, d}
}

func (a api) reader() *webtest.Client { return a.As(readKey) }

type page struct {
	Events     []event `json:"events"`
	NextCursor *string `json:"next_cursor"`
}

func TestHTTPRecord(t *testing.T) {
	for _, rung := range []string{"direct", "postgres"} {
		t.Run(rung, func(t *testing.T) {
			t.Parallel()
			a := newAPI(t, rungs[rung])
			var one event
			a.As(writeKey).Do(http.MethodPost, "/v1/audit-events", `{"action":"invoice.paid","actor":{"type":"customer","id":"c 1"},
				"target":{"type":"invoice","id":"i:1"},"ip":"::ffff:192.0.2.1","user_agent":"shop","metadata":{"b": 1.0, "a": []}}`).
				Want(http.StatusCreated).JSON(&one)
			if one.RecordedBy != "writer" || one.Action != "invoice.paid" || one.Actor != (reference{"customer", "c 1"}) ||
				*one.Target != (reference{"invoice", "i:1"}) || one.IP != "192.0.2.1" || one.UserAgent != "shop" ||
				one.RequestID == "" || string(one.Metadata) != `{"b":1.0,"a":[]}` {
				t.Errorf("recorded %+v", one)
			}
			var got event
			a.reader().Do(http.MethodGet, "/v1/audit-events/"+one.ID, nil).Want(http.StatusOK).JSON(&got)
			if asJSON(got) != asJSON(one) {
				t.Errorf("got %+v, want %+v", got, one)
			}

			var many []event
			a.As(writeKey).Do(http.MethodPost, "/v1/audit-events", `[{"action":"a.b"},{"action":"a.c"}]`).Want(http.StatusCreated).JSON(&many)
			if len(many) != 2 || many[1].Action != "a.c" || many[1].Actor != (reference{"api_key", "writer"}) || many[1].Target != nil {
				t.Errorf("recorded %+v", many)
			}
			a.As(writeKey).Do(http.MethodPost, "/v1/audit-events", `[{"action":"a.b"}]`).Want(http.StatusCreated).JSON(&many)
			if len(many) != 1 {
				t.Errorf("an array of one was answered with %d", len(many))
			}
		})
	}
}

// asJSON makes events comparable.
func asJSON(e event) string {
	b, _ := json.Marshal(e)
	return string(b)
}

func TestHTTPRecordRefusals(t *testing.T) {
	t.Parallel()
	a := newAPI(t, rungs["direct"])
	big, _ := json.Marshal(map[string]string{"x": strings.Repeat("x", MaxMetadata)})
	tests := []struct {
		name, body string
		status     int
		pointers   []string
	}{
		{"empty object", `{}`, 422, []string{"/action"}},
		{"no event", `[]`, 422, []string{""}},
		{"too many", `[` + strings.Repeat(`{"action":"a.b"},`, MaxBatch) + `{"action":"a.b"}]`, 422, []string{""}},
		{
			"all violations of a batch", `[{"action":"a.b"},{"action":"Bad","actor":{"type":"User","id":"x\u0007"},"ip":"1.2.3"}]`, 422,
			[]string{"/1/action", "/1/actor/id", "/1/actor/type", "/1/ip"},
		},
		{"a clock of one's own", `{"action":"a.b","occurred_at":"2020-01-01T00:00:00Z"}`, 422, []string{"/occurred_at"}},
		{"somebody else's name", `{"action":"a.b","recorded_by":""}`, 422, []string{"/recorded_by"}},
		{"metadata that is no object", `{"action":"a.b","metadata":[]}`, 422, []string{"/metadata"}},
		{"metadata too large", `{"action":"a.b","metadata":` + string(big) + `}`, 422, []string{"/metadata"}},
		{"neither object nor array", `"a.b"`, 422, []string{""}},
		{"no JSON", `{`, 400, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			res := a.As(writeKey).Do(http.MethodPost, "/v1/audit-events", test.body).Want(test.status)
			var problem web.Problem
			res.JSON(&problem)
			var pointers []string
			for _, e := range problem.Errors {
				if e.Pointer != nil {
					pointers = append(pointers, strings.TrimPrefix(*e.Pointer, "#"))
				}
			}
			slices.Sort(pointers)
			if pointers = slices.Compact(pointers); !slices.Equal(pointers, test.pointers) {
				t.Errorf("pointers %q, want %q", pointers, test.pointers)
			}
		})
	}
	if events, err := a.Service.List(t.Context(), Filter{Limit: 10}); err != nil || len(events) > 0 {
		t.Errorf("%d events were recorded all the same, %v", len(events), err)
	}
}

func TestHTTPList(t *testing.T) {
	t.Parallel()
	a := newAPI(t, rungs["direct"])
	ada, bob := ids.New(), ids.New()
	adaID, bobID := ids.Format("user", ada), ids.Format("user", bob)
	for i := range 25 {
		record(t, a.Service, Event{Action: "user.updated", Actor: Ref{User, adaID}, Target: Ref{"order", fmt.Sprint("o:", i%2)}, IP: "10.0.0.1"})
		record(t, a.Service, Event{Action: "user.seen", Actor: Ref{User, bobID}, Target: Ref{User, adaID}})
		record(t, a.Service, Event{Action: "user.seen", Actor: Ref{User, bobID}, Target: Ref{User, bobID}})
	}
	cutoff := record(t, a.Service, Event{Action: "cut.off", Actor: Ref{Type: System}})[0].OccurredAt.UTC().Format(time.RFC3339Nano)
	tests := []struct {
		name, query string
		as          string
		want        int
	}{
		{"everything", "", readKey, 76},
		{"actor", "actor=" + adaID, readKey, 25},
		{"actor with type", "actor=user:" + adaID, readKey, 25},
		{"actor with another type", "actor=key:" + adaID, readKey, 0},
		{"actor without id", "actor=system:", readKey, 1},
		{"target whose id holds a colon", "target=order:o:1", readKey, 12},
		{"action", "action=user.seen", readKey, 50},
		{"actor, target and action", "action=user.seen&target=" + adaID + "&actor=" + bobID, readKey, 25},
		{"from", "from=" + cutoff, readKey, 1},
		{"to", "to=" + cutoff, readKey, 75},
		{"a session's own", "", "st_" + ada.String(), 50},
		{"a session's own, filtered", "action=user.seen", "st_" + ada.String(), 25},
		{"a session asks for another's", "actor=" + bobID, "st_" + ada.String(), 25},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			seen := map[string]bool{}
			query, last := test.query, time.Now().Add(time.Hour)
			for {
				var p page
				a.As(test.as).Do(http.MethodGet, "/v1/audit-events?limit=7&"+query, nil).Want(http.StatusOK).JSON(&p)
				for _, e := range p.Events {
					if e.OccurredAt.After(last) || seen[e.ID] {
						t.Errorf("%s is out of order or was seen before", e.ID)
					}
					seen[e.ID], last = true, e.OccurredAt
				}
				if p.NextCursor == nil {
					break
				}
				query = test.query + "&cursor=" + url.QueryEscape(*p.NextCursor)
			}
			if len(seen) != test.want {
				t.Errorf("%d events, want %d", len(seen), test.want)
			}
		})
	}
	var p page
	a.reader().Do(http.MethodGet, "/v1/audit-events?limit=1", nil).Want(http.StatusOK).JSON(&p)
	a.As("st_"+ada.String()).Do(http.MethodGet, "/v1/audit-events?limit=1&cursor="+*p.NextCursor, nil).WantProblem(422, "cursor_invalid")
	a.reader().Do(http.MethodGet, "/v1/audit-events?actor=x&limit=1&cursor="+*p.NextCursor, nil).WantProblem(422, "cursor_invalid")
}

func TestHTTPAuthorization(t *testing.T) {
	t.Parallel()
	a := newAPI(t, rungs["direct"])
	id := ids.Format(IDPrefix, record(t, a.Service, Event{Action: "a.b", Actor: Ref{Type: System}})[0].ID)
	session := "st_" + ids.New().String()
	for _, path := range []string{
		"/v1/audit-events/" + id, "/v1/audit-events/export", "/v1/audit-log/checkpoint", "/v1/audit-log/proof?event=" + id, "/v1/audit-log/consistency?from=1",
	} {
		a.Do(http.MethodGet, path, nil).Want(http.StatusUnauthorized)
		a.As(session).Do(http.MethodGet, path, nil).Want(http.StatusForbidden)
		a.As(writeKey).Do(http.MethodGet, path, nil).WantProblem(http.StatusForbidden, "scope_missing")
	}
	a.Do(http.MethodGet, "/v1/audit-events", nil).Want(http.StatusUnauthorized)
	a.As(writeKey).Do(http.MethodGet, "/v1/audit-events", nil).WantProblem(http.StatusForbidden, "scope_missing")
	a.As(session).Do(http.MethodPost, "/v1/audit-events", `{"action":"a.b"}`).Want(http.StatusForbidden)
	a.As(readKey).Do(http.MethodPost, "/v1/audit-events", `{"action":"a.b"}`).WantProblem(http.StatusForbidden, "scope_missing")
	a.reader().Do(http.MethodGet, "/v1/audit-events/"+ids.Format("user", ids.New()), nil).WantProblem(404, "id_malformed")
	a.reader().Do(http.MethodGet, "/v1/audit-events/"+ids.Format(IDPrefix, ids.New()), nil).WantProblem(404, "audit_event_not_found")
}

func TestHTTPExport(t *testing.T) {
	t.Parallel()
	a := newAPI(t, rungs["postgres"])
	const n = 2*exportPage + 10
	for i := range n / 10 {
		batch := make([]Event, 10)
		for j := range batch {
			batch[j] = Event{Action: "user.updated", Actor: Ref{User, strconv.Itoa(i*10 + j)}, UserAgent: `=HYPERLINK("http://x")`}
		}
		record(t, a.Service, batch...)
	}
	var events []Event
	lines := bufio.NewScanner(bytes.NewReader(a.reader().Do(http.MethodGet, "/v1/audit-events/export", nil).Want(http.StatusOK).Body))
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		events = append(events, Event{Actor: Ref(e.Actor)})
	}
	if len(events) != n || events[0].Actor.ID != strconv.Itoa(n-1) || events[n-1].Actor.ID != "0" {
		t.Errorf("%d events, first %+v, last %+v", len(events), events[0], events[n-1])
	}

	res := a.reader().Do(http.MethodGet, "/v1/audit-events/export?format=csv&actor=user:5", nil).Want(http.StatusOK)
	rows, err := csv.NewReader(bytes.NewReader(res.Body)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 2 || !slices.Equal(rows[0], csvHeader) || rows[1][8] != `'=HYPERLINK("http://x")` || rows[1][4] != "5" {
		t.Errorf("%d rows, the first %q", len(rows), rows[:min(len(rows), 2)])
	}
	if ct := res.Header.Get("Content-Type"); !strings.HasPrefix(ct, "text/csv") {
		t.Errorf("Content-Type %q", ct)
	}
}

// TestHTTPProofs verifies an event as somebody would who knows the public key alone.
func TestHTTPProofs(t *testing.T) {
	t.Parallel()
	a := newAPI(t, rungs["direct"])
	go func() { _ = a.Run(t.Context()) }()
	a.reader().Do(http.MethodGet, "/v1/audit-log/proof?event=evt_x", nil).WantProblem(422, "validation_failed")
	a.reader().Do(http.MethodGet, "/v1/audit-log/proof?event="+ids.Format(IDPrefix, ids.New()), nil).WantProblem(404, "audit_event_not_found")

	var recorded []event
	a.As(writeKey).Do(http.MethodPost, "/v1/audit-events", `[`+strings.Repeat(`{"action":"a.b"},`, 600)+`{"action":"a.b"}]`).
		Want(http.StatusCreated).JSON(&recorded)
	var proof struct {
		LeafIndex          int64 `json:"leaf_index"`
		Size               int64
		Leaf               []byte
		LeafHash, RootHash string
		Hashes             []tlog.Hash
		Checkpoint         string
	}
	deadline := time.Now().Add(time.Minute)
	for {
		res := a.reader().Do(http.MethodGet, "/v1/audit-log/proof?event="+recorded[300].ID, nil)
		if res.Status == http.StatusOK {
			res.JSON(&proof)
			break
		}
		res.WantProblem(http.StatusConflict, "audit_event_not_sealed")
		if time.Now().After(deadline) {
			t.Fatal("never sealed")
		}
		time.Sleep(20 * time.Millisecond)
	}
	var head struct {
		Checkpoint string `json:"checkpoint"`
		PublicKey  string `json:"public_key"`
	}
	a.reader().Do(http.MethodGet, "/v1/audit-log/checkpoint", nil).Want(http.StatusOK).JSON(&head)
	verifier, err := ReadKeys(KeyConfig{StateDir: t.TempDir(), Verifiers: []string{head.PublicKey}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := verifier.open(proof.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	if err := tlog.CheckRecord(proof.Hashes, c.Size, c.Root, proof.LeafIndex, tlog.RecordHash(proof.Leaf)); err != nil {
		t.Error(err)
	}
	if !bytes.Contains(proof.Leaf, []byte("a.b")) {
		t.Errorf("leaf %q", proof.Leaf)
	}

	var consistency struct {
		FromRootHash string `json:"from_root_hash"`
		ToRootHash   string `json:"to_root_hash"`
		Hashes       []tlog.Hash
	}
	a.reader().Do(http.MethodGet, "/v1/audit-log/consistency?from=1", nil).Want(http.StatusOK).JSON(&consistency)
	from, err := base64.StdEncoding.DecodeString(consistency.FromRootHash)
	if err != nil {
		t.Fatal(err)
	}
	if err := tlog.CheckTree(consistency.Hashes, c.Size, c.Root, 1, tlog.Hash(from)); err != nil {
		t.Error(err)
	}
	a.reader().Do(http.MethodGet, "/v1/audit-log/consistency?from=100000", nil).WantProblem(422, "tree_size_invalid")
	a.reader().Do(http.MethodGet, "/v1/audit-log/proof?event="+recorded[0].ID+"&size=100000", nil).WantProblem(422, "tree_size_invalid")
}

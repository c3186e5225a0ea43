package auditlog

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/web"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

// million fills two past months with half a million events each: 1,000 users, of whom user_0 does half of everything,
// and ten actions, of which one is rare.
func million(t *testing.T) *db.DB {
	t.Helper()
	d := openDB(t)
	l := &sealed{Log: &Log{db: d}}
	for _, month := range []string{"2025-01-01", "2025-02-01"} {
		l.behind(
			t,
			`CREATE TABLE filled (LIKE audit_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)`,
			`INSERT INTO filled (id, occurred_at, txid, action, actor_type, actor_id, target_type, target_id, metadata)
			SELECT gen_random_uuid(), timestamptz '`+month+` 00:00Z' + n * interval '4 seconds', (n / 10 + 100)::text::xid8,
				CASE WHEN n % 50000 = 0 THEN 'user.erased' ELSE 'user.updated' || n % 9 END,
				'user', 'user_' || CASE WHEN n % 2 = 0 THEN 0 ELSE n % 1000 END, 'user', 'user_' || n % 997, '{"changed":["name"]}'
			FROM generate_series(1, 500000) n`,
			fmt.Sprintf(`ALTER TABLE audit_events ATTACH PARTITION filled FOR VALUES FROM ('%[1]s 00:00Z') TO (timestamptz '%[1]s 00:00Z' + interval '1 month')`, month),
			`ALTER TABLE filled RENAME TO audit_events_`+strings.ReplaceAll(month[:7], "-", "_"),
		)
	}
	for _, table := range []string{"audit_events", "audit_origins"} {
		if _, err := d.SQL().ExecContext(t.Context(), `ANALYZE `+table); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// TestScale holds what must not depend on how many events there are.
func TestScale(t *testing.T) {
	d := million(t)
	t.Run("plans", func(t *testing.T) { testPlans(t, d) })
	t.Run("export", func(t *testing.T) { testExportMemory(t, d, NewDirectRepository(d)) })
}

// plan is what EXPLAIN (FORMAT JSON) says of a node.
type plan struct {
	Node    string  `json:"Node Type"`
	Index   string  `json:"Index Name"`
	Rows    float64 `json:"Actual Rows"`
	Removed float64 `json:"Rows Removed by Filter"`
	Plans   []plan
}

// walk visits the node and those below.
func (p plan) walk(visit func(plan)) {
	visit(p)
	for _, child := range p.Plans {
		child.walk(visit)
	}
}

// testPlans reads the plans of every filter: none may scan a table or sort what it found, and none may look at many
// more rows than its page has.
func testPlans(t *testing.T, d *db.DB) {
	t.Helper()
	middle := time.Date(2025, 1, 20, 0, 0, 0, 0, time.UTC)
	late := middle.AddDate(0, 0, 20)
	deep := &Position{OccurredAt: middle, ID: uuid.Max}
	tests := map[string]Filter{
		"all":                    {},
		"rare actor":             {Actor: Ref{User, "user_77"}},
		"frequent actor":         {Actor: Ref{ID: "user_0"}},
		"unknown actor":          {Actor: Ref{ID: "user_x"}},
		"target":                 {Target: Ref{ID: "user_5"}},
		"rare action":            {Action: "user.erased"},
		"frequent action":        {Action: "user.updated1"},
		"time":                   {From: &middle, To: &late},
		"actor and time":         {Actor: Ref{ID: "user_77"}, From: &middle, To: &late},
		"target and time":        {Target: Ref{ID: "user_5"}, From: &middle, To: &late},
		"action and time":        {Action: "user.erased", From: &middle, To: &late},
		"subject":                {Subject: "user_77"},
		"all, deep":              {After: deep},
		"frequent actor, deep":   {Actor: Ref{ID: "user_0"}, After: deep},
		"rare action, deep":      {Action: "user.erased", After: deep},
		"subject, deep":          {Subject: "user_77", After: deep},
		"actor and action":       {Actor: Ref{ID: "user_77"}, Action: "user.updated1"},
		"actor and rare action":  {Actor: Ref{ID: "user_0"}, Action: "user.erased"},
		"frequent actor, target": {Actor: Ref{ID: "user_0"}, Target: Ref{ID: "user_5"}},
	}
	for name, f := range tests {
		t.Run(name, func(t *testing.T) {
			f.Limit = 51
			query, args := listQuery(f)
			checkPlan(t, d, query, args)
			query, args = gormListQuery(t, NewPostgresRepository(d), f)
			checkPlan(t, d, query, args)
		})
	}
}

func checkPlan(t *testing.T, d *db.DB, query string, args []any) {
	t.Helper()
	var explained []byte
	err := d.SQL().QueryRowContext(t.Context(), `EXPLAIN (ANALYZE, FORMAT JSON) `+query, args...).Scan(&explained)
	if err != nil {
		t.Fatal(err)
	}
	var plans []struct{ Plan plan }
	if err := json.Unmarshal(explained, &plans); err != nil {
		t.Fatal(err)
	}
	looked := 0.0
	plans[0].Plan.walk(func(p plan) {
		if p.Node == "Seq Scan" && p.Rows+p.Removed > 0 {
			t.Errorf("scans a table:\n%s", explained)
		}
		if p.Index != "" {
			looked += p.Rows + p.Removed
		}
	})
	if looked > 2500 { // of a million; the worst is a filter by two members, each of them frequent
		t.Errorf("looks at %.0f rows:\n%s", looked, explained)
	}
}

// testExportMemory exports half a million events and watches the heap, of client and server together.
func testExportMemory(t *testing.T, d *db.DB, repo Repository) {
	t.Helper()
	const limit = 48 << 20 // the answer itself is three times as large
	s := webtest.NewServer(t, d, func(c *web.Config, _ *web.Deps) { c.Keys = []web.APIKey{webtest.Key("reader", readKey, "audit:read")} })
	keys, err := OpenKeys(KeyConfig{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	New(Deps{DB: d, Repository: repo, Keys: keys}).Routes(s.API())
	server := httptest.NewServer(s.Handler())
	defer server.Close()

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/audit-events/export?to=2025-02-01T00:00:00Z", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+readKey)
	before := heap(true)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines, size, peak := 0, 0, uint64(0)
	for scanner := bufio.NewScanner(res.Body); scanner.Scan(); lines++ {
		size += len(scanner.Bytes())
		if lines%10_000 == 0 {
			peak = max(peak, heap(false))
		}
	}
	if lines != 500_000 || size < 2*limit {
		t.Errorf("%d lines of %d bytes", lines, size)
	}
	if peak > before+limit {
		t.Errorf("the heap grew by %d MiB", (peak-before)>>20)
	}
}

func heap(collect bool) uint64 {
	if collect {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

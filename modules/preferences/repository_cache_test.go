package preferences

import (
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/cache/cachetest"
	"github.com/strata-accounts/strata/platform/ids"
)

// reads returns how many reads of a kind a tier has answered.
func reads(t *testing.T, metrics *prometheus.Registry, kind, tier string) (n float64) {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if f.GetName() == "strata_cache_reads_total" && labels["kind"] == kind && labels["tier"] == tier {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// Each tier answers, and answers what PostgreSQL would, to the byte: the ETag must not depend on who answers.
func TestCacheAnswersTheSame(t *testing.T) {
	deployments := cachetest.Deployments(t)
	for _, tier := range []string{"process", "redis"} {
		t.Run(tier, func(t *testing.T) {
			d := openDB(t)
			direct := NewDirectRepository(d)
			mustDefine(t, direct, "theme", `{"description":"<&>","maximum":1e300}`, `"<b> & \u2028"`)
			user, nobody := ids.New(), ids.New()
			mustSet(t, direct, user, map[string]string{"theme": `{"b":"<","a":1.50}`})
			c, metrics := cachetest.Start(t, d, deployments[tier])
			r := NewCacheRepository(NewPostgresRepository(d), c)
			for reads(t, metrics, valuesKind, tier) < 10 || reads(t, metrics, definitionsKind, tier) < 10 {
				wantSameAsDirect(t, r, direct, user, nobody)
			}
		})
	}
}

func wantSameAsDirect(t *testing.T, r Reader, direct Reader, users ...uuid.UUID) {
	t.Helper()
	got, err := r.Definitions(t.Context())
	wantError(t, "Definitions", err, nil)
	want, err := direct.Definitions(t.Context())
	wantError(t, "Definitions", err, nil)
	for i := range want.Definitions {
		if len(got.Definitions) != len(want.Definitions) || !got.Definitions[i].equal(want.Definitions[i]) || got.Tag != want.Tag {
			t.Fatalf("cached %+v, stored %+v", got, want)
		}
	}
	for _, user := range users {
		got, err := r.Values(t.Context(), user)
		wantError(t, "Values", err, nil)
		want, err := direct.Values(t.Context(), user)
		wantError(t, "Values", err, nil)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("cached %v, stored %v", got, want)
		}
	}
}

// What another program writes into any of the tables is noticed, and not only when entries expire.
func TestCacheNoticesForeignWrites(t *testing.T) {
	d := openDB(t)
	c, metrics := cachetest.Start(t, d, func(*cache.Config) {})
	postgres := NewPostgresRepository(d)
	r := NewCacheRepository(postgres, c)
	mustDefine(t, postgres, "theme", `{}`, `1`)
	user := ids.New()
	mustSet(t, postgres, user, map[string]string{"theme": `2`})
	value := func() string {
		v, err := r.Values(t.Context(), user)
		wantError(t, "Values", err, nil)
		set, _ := v.get("theme")
		return string(set)
	}
	preset := func() string {
		c, err := r.Definitions(t.Context())
		wantError(t, "Definitions", err, nil)
		d, _ := c.ByKey("theme")
		return string(d.Default)
	}
	for _, step := range []struct {
		kind, sql string
		read      func() string
		want      string
	}{
		{valuesKind, `UPDATE user_preference_values SET value = '3'`, value, `3`},
		{definitionsKind, `UPDATE preference_definitions SET default_value = '4'`, preset, `4`},
		{valuesKind, `DELETE FROM user_preference_values`, value, ``},
		{valuesKind, `INSERT INTO user_preference_values SELECT user_id, 'theme', '5' FROM user_preferences`, value, `5`},
		{valuesKind, `DELETE FROM user_preferences`, value, ``},
		{definitionsKind, `DELETE FROM preference_definitions`, preset, ``},
	} {
		for before := reads(t, metrics, step.kind, "process"); reads(t, metrics, step.kind, "process") == before; {
			step.read()
		}
		if _, err := d.SQL().ExecContext(t.Context(), step.sql); err != nil {
			t.Fatal(err)
		}
		// Far less than the entries' life of a minute, far more than it takes.
		for deadline := time.Now().Add(20 * time.Second); step.read() != step.want; {
			if time.Now().After(deadline) {
				t.Fatalf("%s was not noticed", step.sql)
			}
		}
	}
}

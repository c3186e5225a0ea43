package rollout

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/strata-accounts/strata/platform/db/dbtest"
	"github.com/strata-accounts/strata/platform/web"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

const readKey = "sk_may_read_the_rollout_0123456789abcdef"

func TestModulesAPI(t *testing.T) {
	d := dbtest.Open(t, Migrations())
	i := newInstance(t, d, Setting{Direct, Whole})
	server := webtest.NewServer(t, d, func(c *web.Config, _ *web.Deps) {
		c.Keys = append(c.Keys, webtest.Key("reader", readKey, "rollout:read"))
	})
	i.Routes(server.API())
	i.Routes(server.AdminAPI())
	anonymous := webtest.New(t, server)
	api, root := anonymous.As(readKey), anonymous.As(webtest.RootKey)

	var list struct{ Modules []module }
	api.Do("GET", "/v1/modules", nil).Want(http.StatusOK).JSON(&list)
	if len(list.Modules) != 1 || list.Modules[0].Stage != "direct" || list.Modules[0].Instances != (instances{1, 1}) {
		t.Errorf("modules %+v", list)
	}
	shadow := map[string]any{"stage": "shadow", "percent": 12.5, "reason": "the first step"}
	anonymous.Do("GET", "/v1/modules", nil).WantProblem(http.StatusUnauthorized, "unauthenticated")
	api.Do("PATCH", "/v1/modules/users", shadow).WantProblem(http.StatusForbidden, "scope_missing")
	api.Do("GET", "/v1/modules/orders", nil).WantProblem(http.StatusNotFound, "module_not_found")
	root.Do("PATCH", "/v1/modules/users", map[string]any{"stage": "shadow"}).WantProblem(http.StatusUnprocessableEntity, "validation_failed")
	root.Do("PATCH", "/v1/modules/users", map[string]any{"percent": 101, "reason": "x"}).WantProblem(http.StatusUnprocessableEntity, "validation_failed")
	root.Do("PATCH", "/v1/modules/users", map[string]any{"stage": "cached", "reason": "x"}).WantProblem(http.StatusConflict, "stage_not_adjacent")

	var m module
	moved := root.Do("PATCH", "/v1/modules/users", shadow, "If-Match", `"1"`).Want(http.StatusOK).JSON(&m)
	if m.Stage != "shadow" || m.Percent != 12.5 || m.Version != 2 || moved.Header.Get("ETag") != `"2"` || m.SafeToAdvance.Value {
		t.Errorf("moved: %+v, ETag %s", m, moved.Header.Get("ETag"))
	}
	root.Do("PATCH", "/v1/modules/users", shadow, "If-Match", `"1"`).WantProblem(http.StatusPreconditionFailed, "precondition_failed")
	newInstance(t, d, Setting{Direct, Whole})
	root.Do("PATCH", "/v1/modules/users", map[string]any{"percent": 50, "reason": "more"}).Want(http.StatusOK)
	root.Do("PATCH", "/v1/modules/users", map[string]any{"percent": 60, "reason": "more"}).
		WantProblem(http.StatusConflict, "instances_not_caught_up")
}

func TestHistoryAndMismatchesAPI(t *testing.T) {
	d := dbtest.Open(t, Migrations())
	i := newInstance(t, d, Setting{Direct, Whole})
	for n := range 3 {
		i.mustMove(t, Setting{Shadow, n + 1})
	}
	i.users.report(&trial{method: "ByID", key: "ada@example.org", version: 4, answerer: direct, other: repository},
		[]Difference{{"/Name", "changed"}})
	if err := i.poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := webtest.NewServer(t, d)
	i.Routes(server.API())
	api := webtest.New(t, server).As(webtest.RootKey)

	var seen []int64
	for path := "/v1/modules/users/history?limit=3"; path != ""; {
		var page struct {
			History    []move
			NextCursor *string `json:"next_cursor"`
		}
		api.Do("GET", path, nil).Want(http.StatusOK).JSON(&page)
		for _, c := range page.History {
			seen = append(seen, c.Version)
		}
		path = ""
		if page.NextCursor != nil {
			path = "/v1/modules/users/history?limit=3&cursor=" + *page.NextCursor
		}
	}
	if fmt.Sprint(seen) != "[4 3 2 1]" {
		t.Errorf("history %v", seen)
	}
	var found struct{ Mismatches []mismatch }
	api.Do("GET", "/v1/modules/users/mismatches", nil).Want(http.StatusOK).JSON(&found)
	if len(found.Mismatches) != 1 || found.Mismatches[0].Differences[0].Pointer != "/Name" || found.Mismatches[0].Compared != "repository" {
		t.Errorf("mismatches %+v", found)
	}
	api.Do("GET", "/v1/modules/orders/mismatches", nil).WantProblem(http.StatusNotFound, "module_not_found")
	api.Do("GET", "/v1/modules/orders/history", nil).WantProblem(http.StatusNotFound, "module_not_found")
}

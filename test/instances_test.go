//go:build unix

package test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// TestInstances runs two instances on one database. What one has acknowledged is in force on the other, whatever that
// holds in its cache. Without Redis they cannot tell each other, and do without their caches.
func TestInstances(t *testing.T) {
	for _, withRedis := range []bool{true, false} {
		t.Run(fmt.Sprintf("redis=%t", withRedis), func(t *testing.T) {
			t.Parallel()
			settings := allAt("cached")
			var redis *dbtest.RedisServer
			if withRedis {
				redis = dbtest.Redis(t)
				settings = append(settings, "REDIS_URL="+redis.URL)
			}
			d := deploy(t, settings...)
			left, right := d.start(), d.start()
			p := pair{t, []*server{left, right}, left.signUp()}
			p.rotate(20)
			p.revoke(5)
			p.suspend(4)
			p.rename(10)
			if withRedis {
				p.outage(redis)
			}
		})
	}
}

// A pair of instances, and a user of both.
type pair struct {
	t       *testing.T
	servers []*server
	account
}

// sides returns the instances in turn: what is done on one is looked for on the other.
func (p pair) sides(turn int) (here, there *server) {
	return p.servers[turn%2], p.servers[(turn+1)%2]
}

// at is the same session on another instance.
func (d device) at(s *server) device { return device{s.As(d.token), d.session, d.token} }

// outage holds the pair to the same while Redis does not answer, is gone, and is back empty.
func (p pair) outage(redis *dbtest.RedisServer) {
	p.t.Helper()
	redis.Pause()
	p.rotate(2)
	redis.Resume()
	p.rotate(4)
	redis.Stop()
	p.rotate(2)
	redis.Start()
	p.rotate(8)
}

func (p pair) rotate(times int) {
	p.t.Helper()
	d := p.servers[0].signIn(p.account)
	for i := range times {
		here, there := p.sides(i)
		d.at(here).wantLive(p.t)
		d.at(there).wantLive(p.t) // and now in its cache
		var rotated struct{ Token string }
		d.at(here).Do("POST", "/v1/sessions/current/rotate", nil).Want(http.StatusOK).JSON(&rotated)
		d.at(there).wantDead(p.t)
		d.at(here).wantDead(p.t)
		d = here.device(d.session, rotated.Token)
		d.at(there).wantLive(p.t)
	}
}

func (p pair) revoke(times int) {
	p.t.Helper()
	for i := range times {
		here, there := p.sides(i)
		first, second := here.signIn(p.account), there.signIn(p.account)
		for _, d := range []device{first, second} {
			d.at(here).wantLive(p.t)
			d.at(there).wantLive(p.t)
		}
		first.at(here).Do("DELETE", "/v1/sessions/"+second.session, nil).Want(http.StatusNoContent)
		second.at(there).wantDead(p.t)
		first.at(there).wantLive(p.t)
		here.root.Do("DELETE", p.path()+"/sessions", nil).Want(http.StatusOK)
		first.at(there).wantDead(p.t)
	}
}

func (p pair) suspend(times int) {
	p.t.Helper()
	for i := range times {
		here, there := p.sides(i)
		d := here.signIn(p.account)
		d.at(there).wantLive(p.t)
		here.root.Do("PATCH", p.path(), `{"status":"suspended"}`).Want(http.StatusOK)
		d.at(there).wantDead(p.t)
		there.Do("POST", "/v1/sessions", credentials(p.email, p.password)).WantProblem(http.StatusForbidden, "user_suspended")
		there.root.Do("PATCH", p.path(), `{"status":"active"}`).Want(http.StatusOK)
		d.at(here).wantDead(p.t)
	}
}

func (p pair) rename(times int) {
	p.t.Helper()
	for i := range times {
		here, there := p.sides(i)
		there.root.Do("GET", p.path(), nil).Want(http.StatusOK)
		name := fmt.Sprintf("%s the %dth", p.name, i)
		here.root.Do("PATCH", p.path(), map[string]string{"name": name}).Want(http.StatusOK)
		var user struct{ Name string }
		if there.root.Do("GET", p.path(), nil).Want(http.StatusOK).JSON(&user); user.Name != name {
			p.t.Errorf("the other instance still has the name before")
		}
	}
}

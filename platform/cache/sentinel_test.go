package cache

import (
	"context"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// follow makes a server the replica of another, and returns when it has what that one has.
func follow(t testing.TB, replica, master *dbtest.RedisServer) {
	t.Helper()
	host, port, err := net.SplitHostPort(master.Addr)
	if err != nil {
		t.Fatal(err)
	}
	command(t, replica, "REPLICAOF", host, port)
	until(t, "a replica in step", func() bool {
		return strings.Contains(command(t, replica, "INFO", "replication"), "master_link_status:up")
	})
}

// promote makes a replica a master, whatever the others believe.
func promote(t testing.TB, replica *dbtest.RedisServer) {
	t.Helper()
	command(t, replica, "REPLICAOF", "NO", "ONE")
}

func command(t testing.TB, server *dbtest.RedisServer, args ...any) string {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer func() { _ = client.Close() }()
	reply, err := client.Do(context.WithoutCancel(t.Context()), args...).Text()
	if err != nil {
		t.Fatalf("%s: %v", args[0], err)
	}
	return reply
}

// TestAMasterThatComesBackIsAnotherOne demotes the master for a moment, in which it takes over the data of a replica that
// lacks an invalidation: the same process, the same epoch and a live marker, but an old value.
func TestAMasterThatComesBackIsAnotherOne(t *testing.T) {
	t.Parallel()
	first, second := dbtest.Redis(t), dbtest.Redis(t)
	s := newSetup(t, first.URL)
	s.exec(t, `INSERT INTO things (id) VALUES ('a')`)
	s.config.Entries = 0
	i := s.start(t)
	i.warm(t, "a")
	follow(t, second, first)
	promote(t, second) // from here on it misses everything
	if err := i.write(t.Context(), "a", `UPDATE things SET n = 5 WHERE id = $1`); err != nil {
		t.Fatal(err)
	}
	follow(t, first, second)
	promote(t, first)
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		wantN(t, i, "a", 5)
	}
	i.warm(t, "a")
	wantN(t, i, "a", 5)
}

// TestAnEpochBelongsToOneServer repeats the call that begins one, as the client does when an answer gets lost.
func TestAnEpochBelongsToOneServer(t *testing.T) {
	t.Parallel()
	begin := func(client *redis.Client) string {
		t.Helper()
		epoch, err := scriptBegin.Run(t.Context(), client, []string{"meta", "log"}, "nonce56789").Text()
		if err != nil || len(epoch) != epochLen {
			t.Fatalf("begin: %q, %v", epoch, err)
		}
		return epoch
	}
	var clients []*redis.Client
	for range 2 {
		client := redis.NewClient(&redis.Options{Addr: dbtest.Redis(t).Addr})
		defer func() { _ = client.Close() }()
		clients = append(clients, client)
	}
	epoch := begin(clients[0])
	if begin(clients[1]) == epoch {
		t.Error("two servers are in one epoch")
	}
	if err := clients[0].HSet(t.Context(), "meta", "i:instance", 1).Err(); err != nil {
		t.Fatal(err)
	}
	if begin(clients[0]) != epoch || clients[0].HLen(t.Context(), "meta").Val() != 6 {
		t.Error("a registration is lost within its epoch")
	}
}

// TestTwoMasters keeps some instances at a former master while the others have moved to its successor.
func TestTwoMasters(t *testing.T) {
	t.Parallel()
	first, second := dbtest.Redis(t), dbtest.Redis(t)
	s := newSetup(t, "")
	s.config.RedisTimeout = controlTimeout // a busy machine must not look like a slow Redis
	s.exec(t, `INSERT INTO things (id) VALUES ('a')`)
	start := func() (*proxy, *instance) {
		p := newProxy(t, first.Addr)
		s.config.RedisURL = p.url()
		i := s.start(t)
		i.warm(t, "a")
		return p, i
	}
	relaying, leader := start()
	moving, other := start()
	follow(t, second, first)
	promote(t, second)
	n := int64(0)
	write := func(writer, reader *instance) {
		t.Helper()
		n++
		if err := writer.write(t.Context(), "a", `UPDATE things SET n = n + 1 WHERE id = $1`); err != nil {
			t.Fatal(err)
		}
		wantN(t, reader, "a", n)
		wantN(t, writer, "a", n)
	}

	lead(moving, second)
	write(other, leader)
	leader.warm(t, "a")
	write(other, leader)
	write(leader, other)
	if hits := other.process() + other.redis(); hits > 0 {
		wantN(t, other, "a", n)
		if other.process()+other.redis() > hits {
			t.Error("a server that the relay does not use is believed")
		}
	}

	lead(relaying, second)
	other.warm(t, "a")
	lead(relaying, first) // the leader alone
	write(leader, other)
	leader.warm(t, "a")
	write(other, leader)
	write(leader, other)
}

// lead has the instance behind the proxy go to another server.
func lead(p *proxy, to *dbtest.RedisServer) {
	p.target.Store(&to.Addr)
	p.disconnect()
}

// failoverFaults are faults of TestNoStaleReads; rareFaults those of a longer run, since others test the same at less cost.
var failoverFaults = []fault{
	{"failover, the former master frozen", "sentinel", func(h *harness, d time.Duration, _ *rand.Rand) {
		time.Sleep(d / 4)
		former := h.sentinel.Master()
		former.Pause()
		h.sentinel.AwaitMaster(former)
		time.Sleep(d / 2)
		former.Resume() // a master, as it believes, until Sentinel tells it otherwise
		time.Sleep(d / 2)
	}},
	{"two masters", "", func(h *harness, d time.Duration, rng *rand.Rand) {
		second := dbtest.Redis(h.t)
		follow(h.t, second, h.server)
		time.Sleep(d / 4)
		promote(h.t, second)
		servers := []*dbtest.RedisServer{h.server, second}
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond) {
			p := h.proxies[rng.IntN(len(h.proxies))]
			p.target.Store(&servers[rng.IntN(2)].Addr)
			if rng.IntN(2) == 0 {
				p.disconnect() // and otherwise new connections alone go there
			}
		}
	}},
}

var rareFaults = []fault{
	{"a replica of the cluster takes over", "cluster", func(h *harness, d time.Duration, _ *rand.Rand) {
		replica := dbtest.RedisClusterReplica(h.t, h.nodes[1])
		time.Sleep(d / 4)
		h.nodes[1].Pause()
		command(h.t, replica, "CLUSTER", "FAILOVER", "TAKEOVER")
		time.Sleep(d / 2)
		h.nodes[1].Resume() // a master, as it believes, until the others tell it otherwise
		time.Sleep(d / 2)
	}},
	{"demoted and promoted", "redis", func(h *harness, d time.Duration, rng *rand.Rand) {
		second := dbtest.Redis(h.t)
		for end := time.Now().Add(d); time.Now().Before(end); {
			follow(h.t, second, h.server)
			time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond)
			promote(h.t, second)
			time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
			follow(h.t, h.server, second)
			promote(h.t, h.server)
			time.Sleep(3 * time.Second)
		}
	}},
}

func TestReplicasAreNeverRead(t *testing.T) {
	for _, query := range []string{
		"?master_name=m&replica_only=true", "?master_name=m&route_by_latency=true", "?master_name=m&route_randomly=true",
		"?addr=b:1&read_only=true", "?cluster=true&route_by_latency=true", "?cluster=true&route_randomly=1",
	} {
		if err := CheckRedisURL("redis://a:1/0" + query); err == nil {
			t.Errorf("%s is accepted", query)
		}
	}
	for _, url := range []string{
		"redis://a:1", "rediss://u:p@a:1/2", "unix:///run/redis.sock", "redis://a:1?cluster=true", "redis://a:1?addr=b:1",
		"redis://a:1/3?master_name=m&addr=b:1&username=u&password=p",
	} {
		if err := CheckRedisURL(url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

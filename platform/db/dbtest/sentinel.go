//go:build unix

package dbtest

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// A RedisSentinelGroup is a master and a replica of it under the watch of one Redis Sentinel, which promotes the replica
// when the master has not answered for 0.3 s.
type RedisSentinelGroup struct {
	URL   string         // the Sentinel's, and the name of the master
	Nodes []*RedisServer // the first is the master to begin with

	t        testing.TB
	sentinel *redis.SentinelClient
}

const sentinelMaster = "strata"

// RedisSentinel starts a master, a replica and a Sentinel, and returns when a failover is possible.
func RedisSentinel(t testing.TB, args ...string) *RedisSentinelGroup {
	t.Helper()
	g := &RedisSentinelGroup{t: t, Nodes: []*RedisServer{Redis(t, args...)}}
	host, port, _ := net.SplitHostPort(g.Nodes[0].Addr) // built by JoinHostPort
	g.Nodes = append(g.Nodes, Redis(t, append(args, "--replicaof", host+" "+port)...))
	watcher := startRedis(t, func(dir, own string) []string {
		file := filepath.Join(dir, "sentinel.conf") // it keeps there what it learns
		settings := "sentinel monitor " + sentinelMaster + " " + host + " " + port + " 1\n" +
			"sentinel down-after-milliseconds " + sentinelMaster + " 300\n" +
			"sentinel failover-timeout " + sentinelMaster + " 3000\n"
		if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{file, "--sentinel", "--port", own, "--bind", "127.0.0.1", "--dir", dir}
	})
	g.URL = "redis://" + watcher.Addr + "/0?master_name=" + sentinelMaster
	g.sentinel = redis.NewSentinelClient(&redis.Options{Addr: watcher.Addr})
	t.Cleanup(func() { _ = g.sentinel.Close() })
	g.await("a replica that may be promoted", func(ctx context.Context) bool {
		replicas, err := g.sentinel.Replicas(ctx, sentinelMaster).Result()
		return err == nil && len(replicas) == 1 && replicas[0]["master-link-status"] == "ok"
	})
	return g
}

// Master returns the node that Sentinel takes for the master.
func (g *RedisSentinelGroup) Master() *RedisServer {
	g.t.Helper()
	addr, err := g.sentinel.GetMasterAddrByName(context.WithoutCancel(g.t.Context()), sentinelMaster).Result()
	if err != nil || len(addr) != 2 {
		g.t.Fatalf("ask Sentinel for the master: %v, %v", addr, err)
	}
	for _, n := range g.Nodes {
		if n.Addr == net.JoinHostPort(addr[0], addr[1]) {
			return n
		}
	}
	g.t.Fatalf("Sentinel's master is none of the nodes: %v", addr)
	return nil
}

// AwaitMaster returns once Sentinel takes another node than this one for the master.
func (g *RedisSentinelGroup) AwaitMaster(other *RedisServer) *RedisServer {
	g.t.Helper()
	g.await("another master", func(context.Context) bool { return g.Master() != other })
	return g.Master()
}

func (g *RedisSentinelGroup) await(what string, reached func(ctx context.Context) bool) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), redisTimeout)
	defer cancel()
	for !reached(ctx) {
		select {
		case <-ctx.Done():
			g.t.Fatalf("Sentinel does not find %s within %s", what, redisTimeout)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

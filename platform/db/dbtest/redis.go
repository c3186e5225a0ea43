//go:build unix

package dbtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/strata-accounts/strata/internal/childproc"
	"github.com/strata-accounts/strata/platform/db/embedded"
)

const (
	redisTimeout = 20 * time.Second // for a server to answer, on a busy machine
	clusterSize  = 3                // masters
	portAttempts = 20

	// Ports outside the range from which systems take those of outgoing connections (from 32768), so that a stopped
	// server finds its port free again. Cluster nodes use the port 10000 above theirs for each other.
	firstPort, lastPort = 11000, 20999
	clusterPortOffset   = 10000
)

// A RedisServer is a redis-server of one test, on a port of the loopback interface and without persistence. It ends
// with the test, and on Linux with the test's process, however that ends.
type RedisServer struct {
	URL  string // redis://127.0.0.1:port/0
	Addr string // 127.0.0.1:port

	t    testing.TB
	args []string
	log  string // file

	mu     sync.Mutex
	cmd    *exec.Cmd // nil while stopped
	exited chan struct{}
}

// Redis starts a redis-server with the given arguments on top of the defaults, such as "--maxmemory", "10mb". Its
// address stays the same over Stop and Start.
func Redis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	return startRedis(t, func(dir, port string) []string {
		return append([]string{
			"--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "no",
			"--repl-diskless-sync-delay", "0",
		}, args...)
	})
}

// startRedis tries ports until the server, whose arguments it is told, gets one.
func startRedis(t testing.TB, args func(dir, port string) []string) *RedisServer {
	t.Helper()
	dir := t.TempDir()
	var err error
	for range portAttempts {
		port := strconv.Itoa(firstPort + rand.IntN(lastPort-firstPort+1)) //nolint:gosec // no secret
		s := &RedisServer{
			Addr: net.JoinHostPort("127.0.0.1", port),
			t:    t,
			log:  filepath.Join(dir, "redis.log"),
		}
		s.URL = "redis://" + s.Addr + "/0"
		s.args = append(args(dir, port), "--logfile", s.log)
		if err = s.start(); err == nil {
			t.Cleanup(s.Stop)
			return s
		}
	}
	t.Fatalf("start redis-server: %v", err)
	return nil
}

// Stop ends the server as kill -9 does; what it held is lost unless its arguments say otherwise. A stopped server stays
// stopped.
func (s *RedisServer) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended by itself
	<-s.exited
	s.cmd = nil
}

// Start starts a stopped server on its old address.
func (s *RedisServer) Start() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatalf("start redis-server: %v", err)
	}
}

// Pause freezes the server: connections stay open, the system accepts new ones, and nothing is answered until Resume.
func (s *RedisServer) Pause() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
}

// Resume lets a paused server go on, with everything that was sent to it in the meantime.
func (s *RedisServer) Resume() {
	s.t.Helper()
	s.signal(syscall.SIGCONT)
}

func (s *RedisServer) signal(sig syscall.Signal) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		s.t.Fatalf("send %s to redis-server: it is stopped", sig)
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("send %s to redis-server: %v", sig, err)
	}
}

func (s *RedisServer) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		return errors.New("it runs already")
	}
	program, err := redisProgram()
	if err != nil {
		return err
	}
	cmd := exec.Command(program, s.args...) //nolint:noctx // Stop ends it
	if err := childproc.Start(cmd, syscall.SIGKILL); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	if err := s.awaitPong(cmd.Process.Pid, exited); err != nil {
		_ = cmd.Process.Kill()
		<-exited
		return err
	}
	s.cmd, s.exited = cmd, exited
	return nil
}

// awaitPong returns when the server answers, and is this process and not another on the port.
func (s *RedisServer) awaitPong(pid int, exited <-chan struct{}) error {
	client := redis.NewClient(&redis.Options{Addr: s.Addr, MaxRetries: -1, ContextTimeoutEnabled: true})
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), redisTimeout)
	defer cancel()
	for {
		info, err := client.InfoMap(ctx, "server").Result()
		if err == nil && info["Server"]["process_id"] == strconv.Itoa(pid) {
			return nil
		}
		select {
		case <-exited:
			return errors.New(lastLine(s.log))
		case <-ctx.Done():
			return fmt.Errorf("no answer within %s: %w", redisTimeout, err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// redisProgram finds or installs redis-server, once per process.
var redisProgram = sync.OnceValues(func() (string, error) {
	if path, err := exec.LookPath("redis-server"); err == nil {
		return path, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := embedded.Install(ctx, slog.New(slog.DiscardHandler), "redis"); err != nil {
		return "", err
	}
	return exec.LookPath("redis-server")
})

// RedisCluster starts a Redis Cluster of three nodes, all masters, each with a third of the slots, and returns when all
// of them find it complete.
func RedisCluster(t testing.TB) []*RedisServer {
	t.Helper()
	const slots = 16384
	ctx, cancel := context.WithTimeout(t.Context(), redisTimeout)
	defer cancel()
	nodes := make([]*RedisServer, clusterSize)
	clients := make([]*redis.Client, clusterSize)
	for i := range nodes {
		nodes[i] = Redis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
		clients[i] = redis.NewClient(&redis.Options{Addr: nodes[i].Addr})
		defer func() { _ = clients[i].Close() }()
		host, port, _ := net.SplitHostPort(nodes[0].Addr) // built by JoinHostPort
		err := errors.Join(
			clients[i].Do(ctx, "cluster", "set-config-epoch", i+1).Err(), // no two nodes may claim one
			clients[i].ClusterAddSlotsRange(ctx, i*slots/clusterSize, (i+1)*slots/clusterSize-1).Err(),
			clients[i].ClusterMeet(ctx, host, port).Err(),
		)
		if err != nil {
			t.Fatalf("form the Redis Cluster: %v", err)
		}
	}
	for _, client := range clients {
		awaitCluster(ctx, t, client, clusterSize)
	}
	return nodes
}

// RedisClusterReplica adds a replica of one node to a cluster, and returns when it has what that one has.
func RedisClusterReplica(t testing.TB, master *RedisServer) *RedisServer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), redisTimeout)
	defer cancel()
	replica := Redis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
	client, of := redis.NewClient(&redis.Options{Addr: replica.Addr}), redis.NewClient(&redis.Options{Addr: master.Addr})
	defer func() { _, _ = client.Close(), of.Close() }()
	host, port, _ := net.SplitHostPort(master.Addr) // built by JoinHostPort
	id, err := of.ClusterMyID(ctx).Result()
	if err != nil {
		t.Fatalf("ask a node of the Redis Cluster for its id: %v", err)
	}
	if err := client.ClusterMeet(ctx, host, port).Err(); err != nil {
		t.Fatalf("join the Redis Cluster: %v", err)
	}
	for {
		err := client.ClusterReplicate(ctx, id).Err() // refused until the nodes know each other
		if err == nil && strings.Contains(client.Info(ctx, "replication").Val(), "master_link_status:up") {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the Redis Cluster has no replica after %s: %v", redisTimeout, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	awaitCluster(ctx, t, client, clusterSize)
	return replica
}

// awaitCluster returns when the node knows all others and all slots.
func awaitCluster(ctx context.Context, t testing.TB, client *redis.Client, size int) {
	t.Helper()
	complete := fmt.Sprintf("cluster_size:%d\r\n", size)
	for {
		info, err := client.ClusterInfo(ctx).Result()
		if err == nil && strings.Contains(info, "cluster_state:ok\r\n") && strings.Contains(info, complete) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the Redis Cluster is not complete after %s: %v", redisTimeout, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

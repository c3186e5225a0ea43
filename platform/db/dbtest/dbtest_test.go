//go:build unix

package dbtest_test

import (
	"database/sql"
	"testing"
	"testing/fstest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// notes returns migrations that create a table with one row that holds text.
func notes(text string) db.Migration {
	return db.Migration{Module: "notes", FS: fstest.MapFS{"00001_notes.sql": {Data: []byte(
		"-- +goose Up\nCREATE TABLE notes (body text);\nINSERT INTO notes VALUES ('" + text + "');\n" +
			"-- +goose Down\nDROP TABLE notes;\n",
	)}}}
}

func TestOpenGivesEachTestItsOwnDatabase(t *testing.T) {
	for range 3 {
		t.Run("test", func(t *testing.T) {
			t.Parallel()
			d := dbtest.Open(t, notes("first"))
			if got := count(t, d); got != 1 {
				t.Fatalf("a fresh database has %d rows, want the migration's 1", got)
			}
			if _, err := d.SQL().ExecContext(t.Context(), "INSERT INTO notes VALUES ('mine')"); err != nil {
				t.Fatal(err)
			}
			if got := count(t, d); got != 2 {
				t.Fatalf("%d rows after an insert, want 2", got)
			}
		})
	}
}

func TestOpenFollowsTheContentsOfMigrations(t *testing.T) {
	for _, want := range []string{"one", "two"} {
		d := dbtest.Open(t, notes(want))
		var got string
		if err := d.SQL().QueryRowContext(t.Context(), "SELECT body FROM notes").Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("the database was made by the migration of %q, want %q", got, want)
		}
	}
}

func TestURLDropsTheDatabaseInUse(t *testing.T) {
	var pool *sql.DB
	t.Run("user", func(t *testing.T) {
		var err error
		if pool, err = sql.Open("pgx", dbtest.URL(t)); err != nil {
			t.Fatal(err)
		}
		if err := pool.PingContext(t.Context()); err != nil {
			t.Fatal(err)
		}
	}) // the pool is still connected when the database is dropped
	defer func() { _ = pool.Close() }()
	for deadline := time.Now().Add(time.Minute); pool.PingContext(t.Context()) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the database outlives its test")
		}
	}
}

func TestRedisKeepsItsAddress(t *testing.T) {
	server := dbtest.Redis(t)
	options, err := redis.ParseURL(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer func() { _ = client.Close() }()
	if err := client.Set(t.Context(), "key", "value", 0).Err(); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	if err := client.Ping(t.Context()).Err(); err == nil {
		t.Error("a stopped server answers")
	}
	server.Start()
	if n, err := client.Exists(t.Context(), "key").Result(); err != nil || n != 0 {
		t.Errorf("EXISTS after a restart = %d, %v; want 0: nothing is kept", n, err)
	}
	server.Pause()
	answer := make(chan error, 1)
	go func() {
		patient := redis.NewClient(&redis.Options{Addr: server.Addr, ReadTimeout: -1})
		defer func() { _ = patient.Close() }()
		answer <- patient.Ping(t.Context()).Err()
	}()
	hasty := redis.NewClient(&redis.Options{Addr: server.Addr, ReadTimeout: 50e6, MaxRetries: -1})
	defer func() { _ = hasty.Close() }()
	if err := hasty.Ping(t.Context()).Err(); err == nil {
		t.Error("a paused server answers")
	}
	server.Resume()
	if err := <-answer; err != nil {
		t.Errorf("a resumed server does not answer what it was asked while paused: %v", err)
	}
}

func TestRedisClusterServesEverySlot(t *testing.T) {
	var addrs []string
	for _, node := range dbtest.RedisCluster(t) {
		addrs = append(addrs, node.Addr)
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs})
	defer func() { _ = client.Close() }()
	for i := range 100 {
		key := string(rune('a'+i%26)) + string(rune('A'+i/26))
		if err := client.Set(t.Context(), key, i, 0).Err(); err != nil {
			t.Fatalf("SET %s: %v", key, err)
		}
	}
}

func TestRedisSentinelPromotesTheReplica(t *testing.T) {
	group := dbtest.RedisSentinel(t)
	options, err := redis.ParseFailoverURL(group.URL)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewFailoverClient(options)
	defer func() { _ = client.Close() }()
	if err := client.Set(t.Context(), "key", "value", 0).Err(); err != nil {
		t.Fatal(err)
	}
	first := group.Master()
	first.Pause()
	if second := group.AwaitMaster(first); second != group.Nodes[1] {
		t.Errorf("%s was promoted, which is no replica", second.Addr)
	}
	first.Resume()
	if err := client.Set(t.Context(), "key", "value", 0).Err(); err != nil {
		t.Errorf("after the failover: %v", err)
	}
}

func count(t *testing.T, d *db.DB) (n int) {
	t.Helper()
	if err := d.SQL().QueryRowContext(t.Context(), "SELECT count(*) FROM notes").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

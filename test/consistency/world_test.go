//go:build unix

package consistency

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the foreign writers' driver
	"github.com/redis/go-redis/v9"

	"github.com/strata-accounts/strata/internal/servertest"
	"github.com/strata-accounts/strata/platform/db/dbtest"
)

const (
	instances   = 3
	rootKey     = "sk_root_of_the_consistency_tests_0123456789"
	warmTimeout = 5 * time.Second
)

// program has the switches that make it slow and fail (cmd/api/faults.go).
var program = servertest.NewProgram("../..", "faults")

func TestMain(m *testing.M) {
	code := m.Run()
	program.Remove()
	os.Exit(code)
}

// A world is some instances of the server on one PostgreSQL and one Redis, each over links of its own.
type world struct {
	t         *testing.T
	db        *sql.DB // past everything
	redis     *dbtest.RedisServer
	control   *redis.Client // past the links
	instances []*instance
}

type instance struct {
	*servertest.Process

	t               *testing.T
	addr, adminAddr string
	env             []string
	log             string // file
	toRedis, toSQL  *link
}

// newWorld starts everything. Settings are environment variables, name=value.
func newWorld(t *testing.T, settings ...string) *world {
	t.Helper()
	databaseURL := dbtest.URL(t)
	w := &world{t: t, redis: dbtest.Redis(t, "--maxmemory-policy", "allkeys-lru")}
	w.control = redis.NewClient(&redis.Options{Addr: w.redis.Addr, MaxRetries: -1, ContextTimeoutEnabled: true})
	var err error
	if w.db, err = sql.Open("pgx", databaseURL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(w.control.Close(), w.db.Close()) })
	dir := t.TempDir()
	for n := range instances {
		i := &instance{
			t: t, addr: servertest.FreeAddr(t), adminAddr: servertest.FreeAddr(t), log: filepath.Join(dir, fmt.Sprintf("%d.log", n)),
			toRedis: newLink(t, "tcp", w.redis.Addr),
		}
		i.env = append(servertest.Environment(), "DATABASE_URL="+i.divert(databaseURL), "REDIS_URL=redis://"+i.toRedis.addr()+"/0",
			"STRATA_ADDR="+i.addr, "STRATA_ADMIN_ADDR="+i.adminAddr, "STRATA_STATE_DIR="+dir, "STRATA_ROOT_KEY="+rootKey,
			"STRATA_LOG__LEVEL=warn", "STRATA_DATABASE__MAX_OPEN=20")
		i.env = append(i.env, settings...)
		i.start()
		w.instances = append(w.instances, i)
	}
	for _, i := range w.instances {
		i.awaitReady()
	}
	w.definePreference()
	return w
}

// definePreference makes the one that is written. The servers may roll that back too.
func (w *world) definePreference() {
	w.t.Helper()
	c := client{addr: w.instances[0].addr}
	defer c.close()
	put := request("PUT", "/v1/preference-definitions/"+preference, rootKey, "",
		fmt.Sprintf(`{"schema":{"type":"string"},"default":"%s"}`, state{version: 1}))
	for {
		a, err := c.do(put, writeTimeout)
		switch {
		case err != nil || a.status != http.StatusCreated && a.status != http.StatusServiceUnavailable:
			w.t.Fatalf("define the preference: %d, %v: %s", a.status, err, a.body)
		case a.status == http.StatusCreated:
			return
		}
	}
}

// divert leads the instance to its database over a link, and returns the address to use.
func (i *instance) divert(databaseURL string) string {
	i.t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		i.t.Fatal(err)
	}
	query := u.Query()
	i.toSQL = newLink(i.t, "unix", filepath.Join(query.Get("host"), ".s.PGSQL.5432"))
	query.Del("host")
	u.RawQuery, u.Host = query.Encode(), i.toSQL.addr()
	return u.String()
}

// start runs the process, on the same addresses each time.
func (i *instance) start() {
	i.t.Helper()
	p := servertest.Start(i.t, program.Path(i.t), i.env, i.log)
	i.Process = p
	i.t.Cleanup(func() {
		_ = p.Cmd.Process.Kill()
		<-p.Exited
		if p.Cmd.ProcessState.ExitCode() > 0 {
			i.t.Errorf("an instance ended by itself: %s\n%s", p.Cmd.ProcessState, i.LogTail())
		}
		if log, err := os.ReadFile(i.log); err != nil || bytes.Contains(log, []byte("DATA RACE")) {
			i.t.Errorf("a data race, or no log: %v\n%s", err, i.LogTail())
		}
	})
}

func (i *instance) awaitReady() {
	i.t.Helper()
	i.AwaitReady(i.t, "http://"+i.adminAddr+"/readyz")
}

func (i *instance) signal(s syscall.Signal) {
	i.t.Helper()
	if err := i.Cmd.Process.Signal(s); err != nil {
		i.t.Fatal(err)
	}
}

// restart kills the process and starts another in its place.
func (i *instance) restart(down time.Duration) {
	i.t.Helper()
	i.signal(syscall.SIGKILL)
	<-i.Exited
	time.Sleep(down)
	i.start()
	i.awaitReady()
}

// leader returns the instance that relays; any where none does.
func (w *world) leader() *instance {
	for _, i := range w.instances {
		if i.metrics().sum("strata_cache_relay_leading") > 0 {
			return i
		}
	}
	return w.instances[0]
}

// warm waits until all instances serve from memory, or for a while: on a busy machine one of them may always be late.
func (w *world) warm() {
	for deadline := time.Now().Add(warmTimeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		leased := 0.0
		for _, i := range w.instances {
			leased += i.metrics().sum("strata_cache_process_leased_ratio")
		}
		if leased == instances {
			return
		}
	}
}

// samples are what /metrics says: "name{labels}" to value.
type samples map[string]float64

// metrics asks an instance; one that does not answer has no samples.
func (i *instance) metrics() samples {
	s := samples{}
	_, body, err := servertest.Get(context.Background(), "http://"+i.adminAddr+"/metrics")
	if err != nil {
		return s
	}
	for lines := bufio.NewScanner(bytes.NewReader(body)); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			s[name] = v
		}
	}
	return s
}

// sum adds up the samples of a metric whose labels hold all of these, such as `tier="redis"`.
func (s samples) sum(metric string, labels ...string) (total float64) {
next:
	for name, v := range s {
		if name != metric && !strings.HasPrefix(name, metric+"{") {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(name, l) {
				continue next
			}
		}
		total += v
	}
	return total
}

// A tally is how many reads were answered from memory, of how many, since the processes started.
type tally struct{ hits, all float64 }

func (w *world) tally() (t tally) {
	for _, i := range w.instances {
		m := i.metrics()
		t.all += m.sum("strata_cache_reads_total")
		t.hits += m.sum("strata_cache_reads_total") - m.sum("strata_cache_reads_total", `tier="database"`)
	}
	return t
}

func (t tally) since(before tally) (percent float64) {
	return 100 * (t.hits - before.hits) / max(1, t.all-before.all)
}

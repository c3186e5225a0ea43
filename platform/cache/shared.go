package cache

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/extra/redisotel/v9"
	"github.com/redis/go-redis/v9"
)

const (
	epochLen      = 16   // bytes; read.lua counts on it
	nonceLen      = 10   // of them; begin.lua adds the rest
	clusterGroups = 16   // coherence groups on a cluster, each in one slot
	logLength     = 8192 // entries, about; an instance further behind forgets everything

	controlTimeout = 250 * time.Millisecond // of one call of the protocol
	controlConns   = 8

	fillLease = 3 * time.Second // how long a reader may take to fill

	// A value in Redis is "V", its epoch, one of these, when it was read from PostgreSQL, and the body.
	present, absent = '+', '-'
	valueHeader     = 1 + epochLen + 1 + 8
)

//go:embed scripts/*.lua
var scriptFiles embed.FS

var (
	scriptRead       = script("reign", "read")
	scriptFill       = script("fill")
	scriptInvalidate = script("reign", "invalidate")
	scriptSync       = script("reign", "sync")
	scriptMark       = script("reign", "mark")
	scriptBegin      = script("reign", "begin")
	scriptDrop       = script("drop")
)

func script(files ...string) *redis.Script {
	var source strings.Builder
	for _, file := range files {
		src, err := scriptFiles.ReadFile("scripts/" + file + ".lua")
		if err != nil {
			panic(err) // embedded
		}
		source.Write(src)
	}
	return redis.NewScript(source.String())
}

// shared is the tier in Redis: the scripts, their keys and their deadlines. Each script checks by itself that the server
// still runs as the process in which the current epoch began, so that no answer of a restarted or promoted one counts.
//
// The protocol's own calls have connections to themselves and more time than a request's, so that a burst of requests
// does not end the marker or the leases, which would send all of them to PostgreSQL.
type shared struct {
	client   redis.UniversalClient // for requests
	control  redis.UniversalClient // for the protocol
	prefix   string
	groups   int
	slots    []string      // by group: what its keys begin with, a tag that keeps them in one slot
	timeout  time.Duration // of a request's read or fill
	gather   time.Duration // lookups wait for others at most
	breakers []breaker     // by group
	batches  []batches     // by group
	fills    []fills       // by group
	tokens   atomic.Uint64
	owner    string // the instance, for lease tokens and announcements
}

// openShared parses the URL: a standalone server, Sentinel where it has ?master_name=, Cluster where it has ?addr= or
// ?cluster=true. It does not connect.
func openShared(cfg Config, owner string) (*shared, error) {
	redis.SetLogger(silent{})
	client, groups, err := newClient(cfg.RedisURL, 0)
	if err != nil {
		return nil, fmt.Errorf("redis url %w", err)
	}
	control, _, err := newClient(cfg.RedisURL, controlConns)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	if cfg.Traces != nil { // keys and values stay out of it; the protocol's own calls are nobody's trace
		if err := redisotel.InstrumentTracing(client, redisotel.WithTracerProvider(cfg.Traces), redisotel.WithDBStatement(false)); err != nil {
			return nil, errors.Join(fmt.Errorf("trace redis: %w", err), client.Close(), control.Close())
		}
	}
	s := &shared{
		client: client, control: control, groups: groups, timeout: cfg.RedisTimeout, gather: gatherFor, owner: owner,
		breakers: make([]breaker, groups), batches: make([]batches, groups), fills: make([]fills, groups),
		prefix: cfg.KeyPrefix + "." + strconv.Itoa(groups), // processes that group differently share no key
	}
	for g := range groups {
		s.slots = append(s.slots, s.prefix+"{"+strconv.Itoa(g)+"}:")
	}
	return s, nil
}

// close lets go of Redis once what was to be stored there is.
func (s *shared) close() error {
	for g := range s.fills {
		s.fills[g].drain()
	}
	return errors.Join(s.client.Close(), s.control.Close())
}

// silent keeps go-redis from writing each failed connection to standard error; the metrics count them.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// They say nothing of the URL, which may hold a password.
var (
	errURL     = errors.New("is not understood; must be redis://user:password@host:port/db, rediss:// or unix://, for Sentinel with ?master_name=, for a cluster with ?addr=")
	errReplica = errors.New("asks for replicas, which are never read, since they lag; must not have read_only, replica_only, route_by_latency or route_randomly")
)

// CheckRedisURL reports what is wrong with Config.RedisURL, without a word of it. It does not connect.
func CheckRedisURL(rawURL string) error {
	client, _, err := newClient(rawURL, 0)
	if err != nil {
		return err
	}
	return client.Close()
}

// newClient makes a client whose calls end with their context, and after controlTimeout at the latest. go-redis by itself
// waits for seconds, dials five times, and keeps 64 or 256 KiB for each connection. conns is the size of the pool; 0 means go-redis' own choice.
func newClient(rawURL string, conns int) (redis.UniversalClient, int, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, 0, errURL
	}
	query := u.Query()
	const (
		most     = controlTimeout
		buffer   = 4 << 10  // of a connection, each way: a value and a script's arguments are some hundred bytes
		gathered = 32 << 10 // of one that carries whole batches
	)
	switch {
	case query.Has("master_name"):
		o, err := redis.ParseFailoverURL(rawURL)
		if err != nil {
			return nil, 0, errURL
		}
		if o.ReplicaOnly || o.RouteByLatency || o.RouteRandomly {
			return nil, 0, errReplica
		}
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = most, most, most, most
		o.ContextTimeoutEnabled, o.DialerRetries, o.MaxRetries, o.PoolSize = true, 1, 1, conns
		o.ReadBufferSize, o.WriteBufferSize, o.PipelineReadBufferSize, o.PipelineWriteBufferSize = buffer, buffer, gathered, gathered
		return redis.NewFailoverClient(o), 1, nil
	case query.Has("addr") || query.Get("cluster") == "true":
		query.Del("cluster")
		u.RawQuery = query.Encode()
		o, err := redis.ParseClusterURL(u.String())
		if err != nil {
			return nil, 0, errURL
		}
		if o.ReadOnly || o.RouteByLatency || o.RouteRandomly {
			return nil, 0, errReplica
		}
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = most, most, most, most
		o.ContextTimeoutEnabled, o.MaxRetries, o.PoolSize = true, 1, conns
		o.ReadBufferSize, o.WriteBufferSize, o.PipelineReadBufferSize, o.PipelineWriteBufferSize = buffer, buffer, gathered, gathered
		return redis.NewClusterClient(o), clusterGroups, nil
	default:
		o, err := redis.ParseURL(rawURL)
		if err != nil {
			return nil, 0, errURL
		}
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = most, most, most, most
		o.ContextTimeoutEnabled, o.DialerRetries, o.MaxRetries, o.PoolSize = true, 1, 1, conns
		o.ReadBufferSize, o.WriteBufferSize, o.PipelineReadBufferSize, o.PipelineWriteBufferSize = buffer, buffer, gathered, gathered
		return redis.NewClient(o), 1, nil
	}
}

// group returns the coherence group of a name. Every instance must agree on it.
func (s *shared) group(n name) int {
	if s.groups == 1 {
		return 0
	}
	h := fnv.New32a()
	_, _ = io.WriteString(h, n.kind)
	_, _ = io.WriteString(h, n.id.String())
	return int(h.Sum32() % uint32(s.groups)) //nolint:gosec // a handful
}

func (s *shared) breaker(group int) *breaker { return &s.breakers[group] }

func (s *shared) metaKey(group int) string { return s.slots[group] + "meta" }
func (s *shared) logKey(group int) string  { return s.slots[group] + "log" }
func (s *shared) entityKey(group int, n name) string {
	return s.slots[group] + "e:" + n.String()
}
func (s *shared) invalidations() string       { return s.prefix + ":invalidations" }
func (s *shared) acks(instance string) string { return s.prefix + ":acks:" + instance }

// eval runs a script under a deadline and tells the breaker how it went.
func (s *shared) eval(ctx context.Context, on redis.UniversalClient, d time.Duration, g int, sc *redis.Script, keys []string, args ...any) *redis.Cmd {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	cmd := sc.Run(ctx, on, keys, args...)
	s.breakers[g].note(cmd.Err())
	return cmd
}

// part returns one part of a script's reply; the zero value where the reply is not what the script returns, which nobody
// takes for an epoch.
func part[T any](reply []any, i int) (v T) {
	if i < len(reply) {
		v, _ = reply[i].(T)
	}
	return v
}

// A position in a group's invalidation log.
type position struct {
	epoch string
	pos   int64
}

// A holder is an instance that may hold a lease on its in-process tier; seq changes with each lease.
type holder struct{ instance, seq string }

// invalidate deletes names of one group and appends them to its log. The epoch is empty where the server is in none, or
// in another than the expected one (if any). live says whether readers may believe that epoch's values at this moment.
func (s *shared) invalidate(ctx context.Context, g int, names []name, expected, origin string) (at position, live bool, holders []holder, err error) {
	keys := make([]string, 0, len(names)+2)
	keys = append(keys, s.metaKey(g), s.logKey(g))
	for _, n := range names {
		keys = append(keys, s.entityKey(g, n))
	}
	on := s.client
	if origin == "" {
		on = s.control
	}
	reply, err := s.eval(ctx, on, controlTimeout, g, scriptInvalidate, keys,
		expected, s.invalidations(), g, origin, joinNames(names), logLength).Slice()
	if err != nil {
		return position{}, false, nil, err
	}
	at = position{epoch: part[string](reply, 0), pos: part[int64](reply, 1)}
	for i := 3; i+1 < len(reply); i += 2 {
		holders = append(holders, holder{part[string](reply, i), part[string](reply, i+1)})
	}
	return at, part[int64](reply, 2) == 1, holders, nil
}

// relay implements target.
func (s *shared) relay(ctx context.Context, g int, epoch string, names []name) (bool, error) {
	at, _, _, err := s.invalidate(ctx, g, names, epoch, "")
	return at.epoch == epoch, err
}

// nameSeparator joins names in the log; PostgreSQL stores no NUL in a text.
const nameSeparator = "\x00"

func joinNames(names []name) string {
	parts := make([]string, len(names))
	for i, n := range names {
		parts[i] = n.String()
	}
	return strings.Join(parts, nameSeparator)
}

func splitNames(joined string) []name {
	parts := strings.Split(joined, nameSeparator)
	names := make([]name, len(parts))
	for i, p := range parts {
		names[i] = parseName(p)
	}
	return names
}

// A logged invalidation: the names and the instance that applied it first.
type logged struct {
	pos    int64
	origin string
	names  []name
}

// granted is what sync hands out.
type granted struct {
	at      position
	reign   string
	marker  reading
	entries []logged
}

// sync asks for a lease, if one is wanted, and for what the log holds beyond a position.
func (s *shared) sync(ctx context.Context, g int, from position, seq uint64, wanted bool) (granted, error) {
	lease := 0
	if wanted {
		lease = 1
	}
	reply, err := s.eval(ctx, s.control, controlTimeout, g, scriptSync, []string{s.metaKey(g), s.logKey(g)},
		s.owner, from.epoch, from.pos, seq, lease, logLength).Slice()
	if err != nil {
		return granted{}, err
	}
	got := granted{
		at:    position{epoch: part[string](reply, 0), pos: part[int64](reply, 3)},
		reign: part[string](reply, 5),
		marker: reading{
			now: time.Duration(part[int64](reply, 1)) * time.Millisecond,
			end: time.Duration(part[int64](reply, 2)) * time.Millisecond,
		},
	}
	for _, e := range part[[]any](reply, 4) {
		entry, err := parseEntry(e)
		if err != nil {
			return granted{}, err
		}
		got.entries = append(got.entries, entry)
	}
	return got, nil
}

// parseEntry reads a stream entry: [id, [o, origin, n, names]].
func parseEntry(e any) (logged, error) {
	pair, ok := e.([]any)
	if !ok || len(pair) != 2 {
		return logged{}, errors.New("invalidation log: not an entry")
	}
	id, _ := pair[0].(string)
	ms, _, _ := strings.Cut(id, "-")
	pos, err := strconv.ParseInt(ms, 10, 64)
	if err != nil {
		return logged{}, fmt.Errorf("invalidation log: %w", err)
	}
	fields, ok := pair[1].([]any)
	if !ok || len(fields) != 4 {
		return logged{}, errors.New("invalidation log: not an entry's fields")
	}
	origin, _ := fields[1].(string)
	names, _ := fields[3].(string)
	return logged{pos: pos, origin: origin, names: splitNames(names)}, nil
}

// drop forgets a holder that has taken no lease since.
func (s *shared) drop(ctx context.Context, g int, h holder) {
	_ = s.eval(ctx, s.control, controlTimeout, g, scriptDrop, []string{s.metaKey(g)}, h.instance, h.seq).Err() // the next writer tries again
}

// mark renews the freshness marker of an epoch from t0, a reading of the server's clock; t0 = 0 only asks. It returns
// the epoch the server is in and its clock.
func (s *shared) mark(ctx context.Context, g int, epoch string, t0 int64) (current string, now int64, err error) {
	reply, err := s.eval(ctx, s.control, controlTimeout, g, scriptMark, []string{s.metaKey(g)}, epoch, t0, freshFor.Milliseconds()).Slice()
	if err != nil {
		return "", 0, err
	}
	return part[string](reply, 0), part[int64](reply, 1), nil
}

// begin starts an epoch.
func (s *shared) begin(ctx context.Context, g int) (epoch string, err error) {
	nonce := rand.Text()[:nonceLen]
	return s.eval(ctx, s.control, controlTimeout, g, scriptBegin, []string{s.metaKey(g), s.logKey(g)}, nonce).Text()
}

// evictionPolicy returns the server's maxmemory-policy.
func (s *shared) evictionPolicy(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	settings, err := s.control.ConfigGet(ctx, "maxmemory-policy").Result()
	return settings["maxmemory-policy"], err
}

// unreachable tells a server that does not answer from one that answers with an error.
func unreachable(err error) bool {
	var answered redis.Error
	if err == nil || errors.As(err, &answered) {
		return false
	}
	return !errors.Is(err, context.Canceled)
}

package cache

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// A claim is what one reader may do with one key in Redis: nothing, or fill it once.
type claim struct {
	group int
	key   string
	epoch string
	lease string // as stored; empty without a lease
}

// A found value as it lies in Redis.
type found struct {
	body    string // the shape and the packed value; empty where missing
	missing bool
	born    time.Time // by the clock of the instance that filled it
}

// outcome of a read.
type outcome uint8

const (
	outcomeNone outcome = iota // nothing to be said of the key
	outcomeHit
	outcomeLeased
	outcomeBusy  // another reader is filling
	outcomeStale // no live marker: nothing in Redis may be believed
	outcomeDown  // Redis does not answer, or not sensibly
)

// An answer is what a reader learns of a key.
type answer struct {
	outcome outcome
	found   found // a hit
	claim   claim // to fill, where outcome is leased
}

// A lookup is what read asks for, in one allocation: go-redis takes pointers to strings, and keeps the arguments.
type lookup struct {
	claim      claim
	also       string // the key of what is read beside it
	args       [7]any
	besideArgs [2]any
	commands   [3]redis.Cmder // the last is for who sends it
}

// read looks a name up, and leases it where there is nothing, in one round trip and without a script. What is out of the
// ordinary is left to the script, which costs half as much again. A second name, if any, is looked up beside it, and not
// leased.
//
// The server tells its reign after the values: if it is the one that the belief is about, they were read in it.
func (s *shared) read(ctx context.Context, n name, b *belief, also name) (first, second answer) {
	g := s.group(n)
	l := &lookup{claim: claim{group: g, key: s.entityKey(g, n), epoch: b.epoch, lease: s.lease(b.epoch)}}
	c := &l.claim
	l.args = [...]any{"set", &c.key, &c.lease, "nx", "get", "px", fillLeaseMillis}
	value := redis.NewStringCmd(ctx, l.args[:]...)
	commands := append(l.commands[:0], value)
	var beside *redis.StringCmd
	if also.kind != "" && s.group(also) == g {
		l.also = s.entityKey(g, also)
		l.besideArgs = [...]any{"get", &l.also}
		beside = redis.NewStringCmd(ctx, l.besideArgs[:]...)
		commands = append(l.commands[:0], beside, value)
	}
	reign, err := s.ask(ctx, g, c.key, commands...)
	if unreachable(err) {
		return answer{outcome: outcomeDown}, answer{}
	}
	if first = judge(value, b.epoch, c.lease); first.outcome == outcomeNone {
		return s.readByScript(ctx, *c), answer{}
	}
	if reign == "" || reign != b.reign {
		return answer{outcome: outcomeStale}, answer{} // what may have been leased is of an epoch that is over
	}
	if first.outcome == outcomeLeased {
		first.claim = *c
	}
	if beside != nil {
		second = judge(beside, b.epoch, "")
	}
	return first, second
}

// lease returns a new lease in an epoch: "L", the epoch, and a token that nobody else has.
func (s *shared) lease(epoch string) string {
	lease := make([]byte, 0, 64)
	lease = append(append(append(lease, 'L'), epoch...), s.owner...)
	return string(strconv.AppendUint(lease, s.tokens.Add(1), 36))
}

// fillLeaseMillis is an argument that need not be made for each lookup.
var fillLeaseMillis any = fillLease.Milliseconds()

// reign reads INFO replication as reign.lua does.
func reign(info string) string {
	if !strings.Contains(info, "role:master") {
		return ""
	}
	_, info, _ = strings.Cut(info, "master_replid:")
	id, _, _ := strings.Cut(info, "\r")
	return id
}

// judge says what is stored under a key; none where that is of another epoch, or the server would not say. The lease may
// be the caller's own, where the client has had to send it twice.
func judge(cmd *redis.StringCmd, epoch, lease string) answer {
	stored, err := cmd.Result()
	switch {
	case errors.Is(err, redis.Nil) || stored == lease:
		return answer{outcome: outcomeLeased}
	case err != nil || len(stored) <= epochLen || stored[1:epochLen+1] != epoch:
		return answer{}
	case stored[0] == 'L':
		return answer{outcome: outcomeBusy}
	}
	return hit(stored)
}

// hit takes a stored value apart.
func hit(stored string) answer {
	if len(stored) < valueHeader || stored[0] != 'V' {
		return answer{}
	}
	born, _ := strconv.ParseInt(stored[valueHeader-8:valueHeader], 16, 64)
	return answer{outcome: outcomeHit, found: found{
		missing: stored[epochLen+1] == absent, body: stored[valueHeader:], born: time.Unix(born, 0),
	}}
}

// readByScript is read where the key holds something of another epoch, or the server would not be asked otherwise.
func (s *shared) readByScript(ctx context.Context, c claim) answer {
	token := c.lease[1+epochLen:]
	reply, err := s.eval(ctx, s.client, s.timeout, c.group, scriptRead, []string{s.metaKey(c.group), c.key}, token, fillLeaseMillis).Text()
	switch {
	case err != nil || reply == "":
		return answer{outcome: outcomeDown}
	case reply[0] == 'V' && len(reply) > epochLen && reply[1:epochLen+1] == c.epoch:
		return hit(reply)
	case reply[0] == 'L':
		c.epoch, c.lease = reply[1:], reply+token
		return answer{outcome: outcomeLeased, claim: c}
	case reply[0] == 'B':
		return answer{outcome: outcomeBusy}
	default:
		return answer{outcome: outcomeStale}
	}
}

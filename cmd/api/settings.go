package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v3"

	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/rollout"
	"github.com/strata-accounts/strata/platform/web"
)

// setting is a key with what its values mean. Parse reports what is wrong with a value, and what is allowed; redact says
// what of a secret may be shown.
type setting struct {
	key    string
	parse  func(value any) error
	redact func(value any) any
}

// shown is a setting in force, as `config print` shows it.
type shown struct {
	key    string
	value  any
	redact func(value any) any
}

const redacted = "[redacted]"

func redactAll(v any) any {
	if v == "" {
		return ""
	}
	return redacted
}

// redactURL hides the password, and all of what is not a URL.
func redactURL(v any) any {
	s := fmt.Sprint(v)
	if s == "" {
		return ""
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.RawQuery != "" && strings.Contains(strings.ToLower(u.RawQuery), "password") {
		return redacted
	}
	return strings.ReplaceAll(u.Redacted(), "xxxxx", redacted)
}

func redactKeys(v any) any {
	keys := []web.APIKey{}
	if err := apiKeys(&keys)(v); err != nil {
		return redacted
	}
	out := make([]map[string]any, len(keys))
	for i, k := range keys {
		out[i] = map[string]any{"name": k.Name, "hash": redacted, "scopes": k.Scopes}
	}
	return out
}

func text(to *string) func(any) error {
	return func(v any) error {
		s, ok := v.(string)
		if !ok && v != nil {
			return errors.New("is not text")
		}
		*to = strings.TrimSpace(s)
		return nil
	}
}

func oneOf(to *string, allowed ...string) func(any) error {
	return func(v any) error {
		for _, a := range allowed {
			if v == a {
				*to = a
				return nil
			}
		}
		return fmt.Errorf("is unknown; must be one of %s", strings.Join(allowed, ", "))
	}
}

func (c *config) stage(module string) func(any) error {
	return func(v any) error {
		stage, err := rollout.ParseStage(fmt.Sprint(v))
		if err != nil {
			return errors.New("is unknown; must be one of direct, shadow, repository, cached")
		}
		c.Stages[module] = stage
		return nil
	}
}

func (c *config) percent(module string) func(any) error {
	return func(v any) error {
		var p float64
		if err := percentage(&p)(v); err != nil {
			return err
		}
		c.Percents[module] = p
		return nil
	}
}

func percentage(to *float64) func(any) error {
	return func(v any) error {
		p, err := strconv.ParseFloat(fmt.Sprint(v), 64)
		if err != nil || !(p >= 0 && p <= 100) { // also not a number
			return errors.New("is not a percentage; must be a number from 0 to 100")
		}
		*to = p
		return nil
	}
}

func boolean(to *bool) func(any) error {
	return func(v any) error {
		b, err := strconv.ParseBool(fmt.Sprint(v))
		if err != nil {
			return errors.New("is neither true nor false; must be one of them")
		}
		*to = b
		return nil
	}
}

func integer[T int | int64](to *T, least, most int64) func(any) error {
	return func(v any) error {
		n, err := strconv.ParseInt(fmt.Sprint(v), 10, 64)
		if err != nil {
			return fmt.Errorf("is not a whole number; must be one from %d to %d", least, most)
		}
		if n < least || n > most {
			return fmt.Errorf("is out of range; must be from %d to %d", least, most)
		}
		*to = T(n)
		return nil
	}
}

func duration(to *time.Duration, least, most time.Duration) func(any) error {
	return func(v any) error {
		d, err := time.ParseDuration(fmt.Sprint(v))
		if err != nil {
			return fmt.Errorf("is not a duration such as 500ms, 5s or 24h; must be one from %s to %s", least, most)
		}
		if d < least || d > most {
			return fmt.Errorf("is out of range; must be from %s to %s", least, most)
		}
		*to = d
		return nil
	}
}

func limit(to map[string]web.Limit, name string) func(any) error {
	return func(v any) error {
		var l web.Limit
		if err := limitOf(&l)(v); err != nil {
			return err
		}
		to[name] = l
		return nil
	}
}

func limitOf(to *web.Limit) func(any) error {
	return func(v any) error {
		requests, per, ok := strings.Cut(fmt.Sprint(v), "/")
		var l web.Limit
		if !ok || integer(&l.Requests, 1, 1_000_000_000)(requests) != nil || duration(&l.Per, time.Second, 24*time.Hour)(per) != nil {
			return errors.New("is not a limit; must be requests/window such as 30/1m, of at least 1 request in 1s to 24h")
		}
		*to = l
		return nil
	}
}

func address(to *string, optional bool) func(any) error {
	return func(v any) error {
		s := fmt.Sprint(v)
		if s == "" && optional {
			return nil
		}
		_, port, err := net.SplitHostPort(s)
		if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 0 || n > 65535 {
			return errors.New("is not an address; must be host:port or :port, with a port from 0 to 65535")
		}
		*to = s
		return nil
	}
}

// items reads a list: YAML's own, or from the environment as JSON or a,b.
func items(v any) ([]any, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case []any:
		return v, nil
	case string:
		s := strings.TrimSpace(v)
		if s == "" {
			return nil, nil
		}
		if !strings.HasPrefix(s, "[") {
			var out []any
			for part := range strings.SplitSeq(s, ",") {
				out = append(out, strings.TrimSpace(part))
			}
			return out, nil
		}
		var out []any
		if err := yaml.Unmarshal([]byte(s), &out); err == nil {
			return out, nil
		}
	}
	return nil, errors.New("is not a list; must be one such as [a, b]")
}

func list(to *[]string) func(any) error {
	return func(v any) error {
		all, err := items(v)
		if err != nil {
			return err
		}
		*to = nil
		for _, item := range all {
			s, ok := item.(string)
			if !ok {
				return errors.New("holds what is not text; must be a list of texts")
			}
			*to = append(*to, s)
		}
		return nil
	}
}

func networks(to *[]string) func(any) error {
	return func(v any) error {
		if err := list(to)(v); err != nil {
			return err
		}
		for _, s := range *to {
			_, errAddr := netip.ParseAddr(s)
			if _, errNet := netip.ParsePrefix(s); errAddr != nil && errNet != nil {
				return errors.New("holds what is not a network; must be addresses or CIDRs such as 10.0.0.0/8")
			}
		}
		return nil
	}
}

func postgresURL(to *string) func(any) error {
	return func(v any) error {
		s := fmt.Sprint(v)
		if s == "" {
			return nil
		}
		if _, err := pgx.ParseConfig(s); err != nil { // its text may hold the password
			return errors.New("is not understood; must be postgres://user:password@host:port/database or a libpq keyword string")
		}
		*to = s
		return nil
	}
}

func redisURL(to *string) func(any) error {
	return func(v any) error {
		s := fmt.Sprint(v)
		if s == "" {
			return nil
		}
		if err := cache.CheckRedisURL(s); err != nil {
			return err
		}
		*to = s
		return nil
	}
}

func collectorURL(to *string) func(any) error {
	return func(v any) error {
		s := fmt.Sprint(v)
		u, err := url.Parse(s)
		if s != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			return errors.New("is not understood; must be http://host:port or https://host:port of an OTLP/HTTP collector")
		}
		*to = s
		return nil
	}
}

var keyPrefixPattern = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,64}$`)

func keyPrefix(to *string) func(any) error {
	return func(v any) error {
		s := fmt.Sprint(v)
		if !keyPrefixPattern.MatchString(s) {
			return errors.New("is not a prefix; must be 1 to 64 letters, digits or one of _ . : -")
		}
		*to = s
		return nil
	}
}

func rootKey(to *string) func(any) error {
	return func(v any) error {
		s := fmt.Sprint(v)
		if s != "" && (len(s) < web.MinRootKey || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })) {
			return fmt.Errorf("is too short or holds blanks; must have at least %d printable ASCII characters", web.MinRootKey)
		}
		*to = s
		return nil
	}
}

var hashPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

func apiKeys(to *[]web.APIKey) func(any) error {
	const form = "must be a list of {name, hash: 64 hexadecimal digits, scopes: [users:read, …]}"
	return func(v any) error {
		all, err := items(v)
		if err != nil {
			return errors.New("is not a list of keys; " + form)
		}
		data, err := json.Marshal(all)
		if err != nil {
			return errors.New("is not a list of keys; " + form)
		}
		*to = nil
		if err := json.Unmarshal(data, to); err != nil {
			return errors.New("is not a list of keys; " + form)
		}
		seen := map[string]bool{}
		for i, k := range *to {
			if k.Name == "" || seen[k.Name] || !hashPattern.MatchString(k.Hash) || len(k.Scopes) == 0 {
				return fmt.Errorf("entry %d lacks a name of its own, a hash or scopes; %s", i+1, form)
			}
			seen[k.Name] = true
		}
		return nil
	}
}

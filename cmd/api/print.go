package main

import (
	"fmt"
	"io"
	"net"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/strata-accounts/strata/platform/web"
)

// print writes the configuration in force as YAML that could be given back, but for what is redacted.
func (c *config) print(out io.Writer) error {
	section := ""
	for _, s := range c.shown {
		value := s.value
		if s.redact != nil {
			value = s.redact(value)
		}
		line, err := yaml.Marshal(value)
		if err != nil {
			return fmt.Errorf("%s: %w", s.key, err)
		}
		name, key, nested := strings.Cut(s.key, ".")
		if !nested {
			fmt.Fprintf(out, "%s: %s", s.key, line)
			continue
		}
		if name != section {
			fmt.Fprintf(out, "\n%s:\n", name)
			section = name
		}
		if strings.Count(string(line), "\n") > 1 {
			fmt.Fprintf(out, "  %s:\n    %s\n", key, strings.ReplaceAll(strings.TrimSpace(string(line)), "\n", "\n    "))
			continue
		}
		fmt.Fprintf(out, "  %s: %s", key, line)
	}
	return nil
}

// announce tells a newcomer where everything is and what to do first.
func announce(out io.Writer, cfg *config, s *web.Server, key generatedKey) {
	base := "http://" + reachable(s.Addr())
	fmt.Fprintf(out, "\nStrata is listening.\n\n  API       %s/v1, documented at %s/docs\n", base, base)
	if addr := s.AdminAddr(); addr != nil {
		fmt.Fprintf(out, "  operator  http://%s  a page; also /readyz?verbose and /metrics\n", reachable(addr))
	}
	fmt.Fprintf(out, "  data      %s\n", cfg.StateDir)
	credential := "$STRATA_ROOT_KEY" //nolint:gosec // the name of a variable
	switch {
	case key.key != "":
		credential = key.key
		fmt.Fprintf(out, "  API key   %s\n            all scopes; shown this once, kept in %s\n", key.key, key.path)
	case key.path != "":
		credential = "$(cat '" + key.path + "')"
		fmt.Fprintf(out, "  API key   in %s\n", key.path)
	default:
		fmt.Fprintf(out, "  API key   as configured\n")
	}
	fmt.Fprintf(out, `
Try:

  curl -sS %[1]s/v1/users -H "Authorization: Bearer %[2]s" -H 'Content-Type: application/json' -d '{"email":"ada@example.com","password":"engine-no-2-of-1843","name":"Ada"}'
  curl -sS %[1]s/v1/sessions -H 'Content-Type: application/json' -d '{"email":"ada@example.com","password":"engine-no-2-of-1843"}'
  curl -sS %[1]s/v1/audit-events -H "Authorization: Bearer %[2]s"

Ctrl-C stops it.

`, base, credential)
}

// reachable is an address that a client on this machine can use where the server listens on all of them.
func reachable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

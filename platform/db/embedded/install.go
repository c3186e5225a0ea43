//go:build unix

package embedded

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// minMajor is the oldest PostgreSQL that the migrations are written for.
const minMajor = 14

// installScript is the one implementation of installing services, which the Makefile runs too.
//
//go:embed install.sh
var installScript []byte

// An installation is one version of PostgreSQL's server programs.
type installation struct {
	dir     string // of the programs, with links resolved: they find their share files from there
	major   int
	version string // such as "15.18"
}

func (i installation) bin(name string) string { return filepath.Join(i.dir, name) }

// Install makes sure that the named services ("postgresql", "redis") are installed, with the system's package manager
// where they are not and this user may; or else the error says in one line what to install. It prevents the system
// from starting what it installs, and is quick where there is nothing to do.
func Install(ctx context.Context, log *slog.Logger, services ...string) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-s", "--"}, services...)...)
	cmd.Stdin = bytes.NewReader(installScript)
	messages := newOutput(log.With("services", services))
	cmd.Stdout, cmd.Stderr = messages, messages
	if err := cmd.Run(); err != nil {
		return errors.New(cmp.Or(messages.lastLine(), err.Error()))
	}
	return nil
}

// findOrInstall returns the installed versions that Strata can use, the newest first; at least one.
func findOrInstall(ctx context.Context, log *slog.Logger) ([]installation, error) {
	if found := find(ctx); len(found) > 0 {
		return found, nil
	}
	log.InfoContext(ctx, "PostgreSQL is not installed; installing it with the system's package manager")
	if err := Install(ctx, log, "postgresql"); err != nil {
		return nil, err
	}
	if found := find(ctx); len(found) > 0 {
		return found, nil
	}
	return nil, fmt.Errorf("PostgreSQL %d or newer was not found: install it, or set DATABASE_URL", minMajor)
}

func find(ctx context.Context) []installation {
	var found []installation
	for _, dir := range candidates(ctx) {
		i, err := inspect(ctx, dir)
		known := slices.ContainsFunc(found, func(other installation) bool { return other.major == i.major })
		if err == nil && i.major >= minMajor && !known {
			found = append(found, i)
		}
	}
	slices.SortStableFunc(found, func(a, b installation) int { return cmp.Compare(b.major, a.major) })
	return found
}

// candidates are the directories where server programs may be, the user's choice (PATH) first.
func candidates(ctx context.Context) []string {
	var dirs []string
	if path, err := exec.LookPath("initdb"); err == nil {
		if resolved, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(resolved))
		}
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", // Debian, Ubuntu
		"/usr/libexec/postgresql*",  // Alpine
		"/usr/pgsql-*/bin",          // PostgreSQL's own packages for Fedora and its kin
		"/opt/homebrew/opt/postgresql*/bin",
		"/usr/local/opt/postgresql*/bin", // Homebrew on Intel
		"/Applications/Postgres.app/Contents/Versions/*/bin",
		"/usr/local/pgsql/bin", // built from source
		"/usr/local/bin",
		"/usr/bin",
	} {
		matches, _ := filepath.Glob(pattern) // the patterns are well-formed
		dirs = append(dirs, matches...)
	}
	return dirs
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) ((\d+)\S*)`)

// inspect returns the installation in dir, if both programs are there.
func inspect(ctx context.Context, dir string) (installation, error) {
	resolved, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
	if err != nil {
		return installation{}, err
	}
	i := installation{dir: filepath.Dir(resolved)}
	if _, err := exec.LookPath(i.bin("initdb")); err != nil {
		return installation{}, err
	}
	out, err := exec.CommandContext(ctx, i.bin("postgres"), "--version").Output()
	if err != nil {
		return installation{}, err
	}
	match := versionPattern.FindStringSubmatch(string(out))
	if match == nil {
		return installation{}, fmt.Errorf("%s --version answers %q", i.bin("postgres"), out)
	}
	i.version = match[1]
	i.major, err = strconv.Atoi(match[2])
	return i, err
}

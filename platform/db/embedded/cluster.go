//go:build unix

package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	orphanWait = 60 * time.Second // for the server of a killed predecessor to write its checkpoint and end
	initPrefix = "pg.init-"       // folders of unfinished initialisations, in the state directory
)

// A cluster is a data directory with the binaries and the user that serve it.
type cluster struct {
	installation
	dir   string
	owner owner
}

// openCluster returns the state directory's cluster, initialised where there is none and free of any former server.
func openCluster(ctx context.Context, cfg Config, installed []installation) (*cluster, error) {
	chosen, err := choose(cfg.StateDir, installed)
	if err != nil {
		return nil, err
	}
	c := &cluster{installation: chosen, dir: dataDir(cfg.StateDir, chosen.major)}
	if c.owner, err = ownerFor(c.dir); err != nil {
		return nil, err
	}
	if err := c.owner.checkReach(cfg.StateDir); err != nil {
		return nil, err
	}
	if err := removeUnfinished(cfg.StateDir); err != nil {
		return nil, err
	}
	if _, err := os.Stat(c.dir); errors.Is(err, os.ErrNotExist) {
		return c, c.init(ctx, cfg)
	} else if err != nil {
		return nil, err
	}
	return c, c.awaitOrphan(ctx, cfg.Log)
}

// choose prefers the installed version whose data is there, then the newest. Data of versions that are not installed
// stops the start: a server that came up empty beside it would look like lost data.
func choose(stateDir string, installed []installation) (installation, error) {
	newest := installed[0]
	for _, i := range installed {
		if _, err := os.Stat(dataDir(stateDir, i.major)); err == nil {
			return i, nil
		}
	}
	existing, err := filepath.Glob(filepath.Join(stateDir, "pg[0-9]*"))
	if err != nil || len(existing) == 0 {
		return newest, err
	}
	return installation{}, fmt.Errorf("%s was written by another version of PostgreSQL than the installed %d: "+
		"install that version, or move the folder away to start empty", existing[0], newest.major)
}

func dataDir(stateDir string, major int) string {
	return filepath.Join(stateDir, "pg"+strconv.Itoa(major))
}

// init builds the cluster beside its place and moves it there whole, so that an interrupted first start leaves nothing
// that the next one could take for a cluster.
func (c *cluster) init(ctx context.Context, cfg Config) error {
	started := time.Now()
	temp, err := os.MkdirTemp(filepath.Dir(c.dir), initPrefix)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temp) }() // gone already where all went well
	if err := c.owner.own(temp); err != nil {
		return err
	}
	// Text sorts by its bytes, the same everywhere; upper and lower case are Unicode's. The socket's directory is
	// private, so whoever reaches the server is its owner.
	args := []string{
		"-D", temp, "-U", role, "--encoding=UTF8", "--locale=C", "--lc-ctype=" + unicodeLocale, "--auth=trust",
	}
	if cfg.Settings["fsync"] == "off" {
		args = append(args, "--no-sync")
	}
	cmd := c.owner.command(ctx, c.bin("initdb"), args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("create the PostgreSQL cluster %s: %w: %s", c.dir, err, errorLine(out))
	}
	if err := os.Rename(temp, c.dir); err != nil {
		return err
	}
	cfg.Log.InfoContext(ctx, "created the PostgreSQL cluster", "data", c.dir, "version", c.version,
		"user", c.owner.name, "took", time.Since(started).Round(time.Millisecond))
	return syncDir(filepath.Dir(c.dir))
}

// errorLine picks the line of a tool's output that says what went wrong: the first with "error", or else the last.
func errorLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(bytes.ToValidUTF8(out, nil))), "\n")
	if i := slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, "error") }); i >= 0 {
		return lines[i]
	}
	return lines[len(lines)-1]
}

// removeUnfinished deletes what interrupted initialisations left. The caller holds the state directory's lock, and
// nobody has ever stored anything there.
func removeUnfinished(stateDir string) error {
	left, err := filepath.Glob(filepath.Join(stateDir, initPrefix+"*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// awaitOrphan waits for the server that a killed process left on the data to end. On Linux it is ending already; where
// the system does not tell a child of its parent's death, it has to be asked.
func (c *cluster) awaitOrphan(ctx context.Context, log *slog.Logger) error {
	former := readPIDFile(c.dir)
	if former.pid == 0 {
		return nil
	}
	if serves(former.pid, c.dir) {
		log.InfoContext(ctx, "waiting for the PostgreSQL server of a killed process to end", "pid", former.pid)
		_ = syscall.Kill(former.pid, syscall.SIGINT) // it may just have ended
	}
	ctx, cancel := context.WithTimeout(ctx, orphanWait)
	defer cancel()
	for serves(former.pid, c.dir) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the PostgreSQL server of a killed process (%d) still runs on %s; end it with kill -QUIT %d",
				former.pid, c.dir, former.pid)
		case <-time.After(pollInterval):
		}
	}
	return c.disownPIDFile()
}

// disownPIDFile keeps PostgreSQL from taking another process, which has the number of the killed server now, for that
// server: likely in a container, where numbers start over. The file must stay, because it also names the shared memory
// by which PostgreSQL detects backends that outlive their server; so it gets this process's number, which PostgreSQL
// knows not to be a server's, being its parent's.
func (c *cluster) disownPIDFile() error {
	path := filepath.Join(c.dir, "postmaster.pid")
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // a clean end
	}
	_, rest, found := bytes.Cut(content, []byte("\n"))
	if err != nil || !found {
		return err
	}
	return os.WriteFile(path, fmt.Appendf(nil, "%d\n%s", os.Getpid(), rest), 0o600)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

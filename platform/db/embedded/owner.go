//go:build unix

package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// DefaultStateDir is where a server keeps its data unless told otherwise: /var/lib/strata for root, or else
// $XDG_DATA_HOME/strata, by default ~/.local/share/strata.
func DefaultStateDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/strata"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "strata")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return filepath.Join(os.TempDir(), "strata-"+strconv.Itoa(os.Geteuid()))
	}
	return filepath.Join(home, ".local", "share", "strata")
}

// makeStateDir creates the directory and the parents it lacks. Below root they can be entered by everyone, because
// PostgreSQL runs as another user; what they hold guards itself.
func makeStateDir(path string) error {
	mode := os.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = 0o755
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("create the state directory: %w", err)
	}
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("create the state directory: %w", err)
	}
	return os.Chmod(path, mode) // whatever the umask
}

// An owner is the user that owns the data and runs the server. PostgreSQL refuses to run as root.
type owner struct {
	name     string
	uid, gid uint32
	groups   []uint32
	switched bool // this process is root and the owner is not
}

// ownerFor returns who serves the data directory: this process's user, or for root whoever owns the data already, or
// else the user that PostgreSQL's packages create, or else nobody.
func ownerFor(dataDir string) (owner, error) {
	if os.Geteuid() != 0 {
		return owner{name: "uid " + strconv.Itoa(os.Geteuid())}, nil
	}
	if info, err := os.Stat(dataDir); err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 {
			return ownerOf(stat)
		}
	}
	for _, name := range []string{"postgres", "_postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			return newOwner(u)
		}
	}
	return owner{}, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody to run it: " +
		"start this program as another user, or set DATABASE_URL")
}

func ownerOf(stat *syscall.Stat_t) (owner, error) {
	u, err := user.LookupId(strconv.FormatUint(uint64(stat.Uid), 10))
	if err != nil {
		return owner{}, fmt.Errorf("find the user who owns the data: %w", err)
	}
	return newOwner(u)
}

func newOwner(u *user.User) (owner, error) {
	ids, err := u.GroupIds()
	if err != nil {
		return owner{}, fmt.Errorf("find the groups of %s: %w", u.Username, err)
	}
	o := owner{name: u.Username, switched: true}
	for _, id := range append([]string{u.Uid, u.Gid}, ids...) {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return owner{}, fmt.Errorf("read the ids of %s: %w", u.Username, err)
		}
		o.groups = append(o.groups, uint32(n))
	}
	o.uid, o.gid, o.groups = o.groups[0], o.groups[1], o.groups[2:]
	return o, nil
}

// command prepares a PostgreSQL program to run as the owner, in a directory the owner can be in, and without the
// environment that would point it elsewhere (PGPORT, PGDATA, ...).
func (o owner) command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = "/"
	cmd.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "PG") || strings.HasPrefix(variable, "LC_") ||
			strings.HasPrefix(variable, "LANG") || strings.HasPrefix(variable, "STRATA_")
	})
	cmd.Env = append(cmd.Env, "LC_ALL=C", "TZ=UTC")
	if o.switched {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: o.uid, Gid: o.gid, Groups: o.groups},
		}
	}
	return cmd
}

// own makes an empty directory the owner's alone.
func (o owner) own(dir string) error {
	if o.switched {
		if err := os.Chown(dir, int(o.uid), int(o.gid)); err != nil {
			return err
		}
	}
	return os.Chmod(dir, 0o700) //nolint:gosec // a directory has to be entered
}

// checkReach says which folder on the way to dir keeps the owner out.
func (o owner) checkReach(dir string) error {
	if !o.switched {
		return nil
	}
	for path := dir; ; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !o.mayEnter(info) {
			return fmt.Errorf("the state directory %s is out of reach for the user %s, as whom PostgreSQL runs when "+
				"started by root: %s may not be entered; choose another with STRATA_STATE_DIR, such as /var/lib/strata",
				dir, o.name, path)
		}
		if path == filepath.Dir(path) {
			return nil
		}
	}
}

func (o owner) mayEnter(dir os.FileInfo) bool {
	stat, ok := dir.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	switch mode := dir.Mode().Perm(); {
	case stat.Uid == o.uid:
		return mode&0o100 != 0
	case stat.Gid == o.gid || slices.Contains(o.groups, stat.Gid):
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}

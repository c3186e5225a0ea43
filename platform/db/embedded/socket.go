//go:build unix

package embedded

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

const (
	socketPrefix = "strata-pg-"
	socketLink   = "socket" // in the state directory
	maxSocketDir = 80       // bytes; the system's limit for a socket's whole path is 103 on macOS, 107 on Linux
)

// A socketDir is the private directory of a running server's socket, with a path short enough for one. A link in the
// state directory leads there: for psql -h <state directory>/socket, and for the next start to clean up after kill -9.
type socketDir struct {
	path string
	link string
}

func makeSocketDir(stateDir string, o owner) (socketDir, error) {
	s := socketDir{link: filepath.Join(stateDir, socketLink)}
	if former, err := os.Readlink(s.link); err == nil && strings.HasPrefix(filepath.Base(former), socketPrefix) {
		if err := (socketDir{former, s.link}).remove(); err != nil {
			return s, err
		}
	}
	parent := os.TempDir()
	if len(parent)+len(socketPrefix)+10 > maxSocketDir || o.checkReach(parent) != nil {
		parent = "/tmp"
	}
	var err error
	if s.path, err = os.MkdirTemp(parent, socketPrefix); err != nil {
		return s, err
	}
	return s, errors.Join(o.own(s.path), os.Symlink(s.path, s.link))
}

func (s socketDir) remove() error {
	return errors.Join(os.RemoveAll(s.path), os.Remove(s.link))
}

//go:build unix

// Package filelock takes advisory locks on files that the system releases when their holder dies.
package filelock

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// A Lock is held until Unlock or the end of the process. Children don't inherit it.
type Lock struct{ file *os.File }

// A HeldError says that another process has the lock.
type HeldError struct {
	Path string
	PID  string // of the holder, as it wrote it; empty where it has not yet
}

// Error names the file and its holder.
func (e *HeldError) Error() string {
	return fmt.Sprintf("%s is locked by process %s", e.Path, e.PID)
}

// Try takes the lock on the file at path, which is created where absent, or returns a *HeldError at once.
func Try(path string) (*Lock, error) { return take(path, syscall.LOCK_EX|syscall.LOCK_NB) }

// Wait takes the lock on the file at path, which is created where absent, however long that takes.
func Wait(path string) (*Lock, error) { return take(path, syscall.LOCK_EX) }

// Unlock releases the lock. The file stays: removing it would let two processes lock two files of one name.
//
// Closing the file would release the lock too, but not while a child that is being started still has its descriptors.
func (l *Lock) Unlock() error {
	return errors.Join(flock(l.file, syscall.LOCK_UN), l.file.Close())
}

func take(path string, how int) (*Lock, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(file, how); err != nil {
		defer func() { _ = file.Close() }()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			pid, _ := io.ReadAll(io.LimitReader(file, 20))
			return nil, &HeldError{Path: path, PID: strings.TrimSpace(string(pid))}
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := writePID(file); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &Lock{file: file}, nil
}

func flock(file *os.File, how int) error {
	for {
		if err := syscall.Flock(int(file.Fd()), how); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func writePID(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := fmt.Fprintln(file, os.Getpid())
	return err
}

//go:build unix

package filelock_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/strata-accounts/strata/platform/db/internal/filelock"
)

func TestOneHolderAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := filelock.Try(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = filelock.Try(path)
	if held := (*filelock.HeldError)(nil); !errors.As(err, &held) || held.PID != strconv.Itoa(os.Getpid()) {
		t.Fatalf("a second Try: %v, want that process %d has the lock", err, os.Getpid())
	}
	waited := make(chan error)
	go func() {
		second, err := filelock.Wait(path)
		if err == nil {
			err = second.Unlock()
		}
		waited <- err
	}()
	if err := first.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("Wait: %v", err)
	}
}

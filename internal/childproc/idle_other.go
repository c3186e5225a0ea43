//go:build !linux

package childproc

import "errors"

// Idle is only known to Linux.
func Idle() error { return errors.ErrUnsupported }

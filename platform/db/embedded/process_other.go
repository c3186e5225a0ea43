//go:build unix && !linux

package embedded

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

const unicodeLocale = "en_US.UTF-8"

// serves reports whether the process is a server on the data directory, and not another that has its number now.
func serves(pid int, dataDir string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	args, err := exec.CommandContext(ctx, "ps", "-ww", "-o", "args=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(args), " "+dataDir+" ")
}

//go:build linux

package embedded

import (
	"os"
	"strconv"
	"strings"
)

const unicodeLocale = "C.UTF-8"

// serves reports whether the process is a server on the data directory, and not another that has its number now.
func serves(pid int, dataDir string) bool {
	args, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return err == nil && strings.Contains(string(args), "\x00"+dataDir+"\x00")
}

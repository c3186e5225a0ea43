package dbtest

import "syscall"

const (
	memoryNeeded = 3 << 30    // bytes; several times what the databases of all tests take at once
	tmpfsMagic   = 0x01021994 // of statfs(2)
	writable     = 0x2        // of access(2)
)

// memoryDir returns a folder whose files are kept in memory, or "" where there is none with enough room: containers
// often have little.
func memoryDir() string {
	const dir = "/dev/shm"
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil || fs.Type != tmpfsMagic || syscall.Access(dir, writable) != nil {
		return ""
	}
	if fs.Bavail*uint64(fs.Bsize) < memoryNeeded { //nolint:gosec // a block's size is not negative
		return ""
	}
	return dir
}

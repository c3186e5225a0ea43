//go:build unix && !linux

package dbtest

// memoryDir returns "": the system has no folder of which it is known that its files are kept in memory.
func memoryDir() string { return "" }

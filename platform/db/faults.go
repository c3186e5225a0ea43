package db

// beforeCommit, where it is set, is called before the COMMIT of a transaction that others are told of afterwards (see
// AfterCommit), and rolls it back with an error.
var beforeCommit func() error

// InjectBeforeCommit is for test/consistency, whose server is the only one that calls it, once, before anything else (see
// cmd/api/faults.go): f may hold transactions up, and roll them back.
func InjectBeforeCommit(f func() error) { beforeCommit = f }

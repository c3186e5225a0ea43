package db

// DecayIdle does at once what the pool does every ten seconds.
func DecayIdle(d *DB) { d.pool.idle.decay() }

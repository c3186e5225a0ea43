package auditlog

import (
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/strata-accounts/strata/platform/db"
)

// tileHeight is the height of the stored tiles: 256 hashes each.
const tileHeight = 8

// tiles reads the stored tiles of the tree, each once. It lives no longer than one call, since the last tiles grow.
type tiles struct {
	ctx   context.Context // of that call; tlog.TileReader has no place for it
	q     db.Querier
	known map[tileKey][]byte
}

type tileKey struct {
	level int
	n     int64
}

func newTiles(ctx context.Context, q db.Querier) *tiles {
	return &tiles{ctx: ctx, q: q, known: map[tileKey][]byte{}}
}

// reader returns the hashes of a tree. What does not belong to it is refused with an error.
func (t *tiles) reader(size int64, root tlog.Hash) tlog.HashReader {
	return tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, t)
}

// Height implements tlog.TileReader.
func (t *tiles) Height() int { return tileHeight }

// SaveTiles implements tlog.TileReader.
func (t *tiles) SaveTiles([]tlog.Tile, [][]byte) {}

// ReadTiles implements tlog.TileReader.
func (t *tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var levels, ns []int64
	for _, w := range wanted {
		if _, ok := t.known[tileKey{w.L, w.N}]; !ok {
			levels, ns = append(levels, int64(w.L)), append(ns, w.N)
		}
	}
	if len(ns) > 0 {
		if err := t.load(levels, ns); err != nil {
			return nil, err
		}
	}
	data := make([][]byte, len(wanted))
	for i, w := range wanted {
		stored := t.known[tileKey{w.L, w.N}]
		if len(stored) < w.W*tlog.HashSize {
			return nil, fmt.Errorf("tile %s is missing or too short", w.Path())
		}
		data[i] = stored[:w.W*tlog.HashSize] // a tile begins with what it was when it was smaller
	}
	return data, nil
}

func (t *tiles) load(levels, ns []int64) error {
	rows, err := t.q.QueryContext(t.ctx, `SELECT level, n, data FROM audit_tiles
		JOIN unnest($1::bigint[], $2::bigint[]) AS wanted (level, n) USING (level, n)`, levels, ns)
	if err != nil {
		return db.Translate(err, nil)
	}
	defer rows.Close()
	for rows.Next() {
		var key tileKey
		var data []byte
		if err := rows.Scan(&key.level, &key.n, &data); err != nil {
			return db.Translate(err, nil)
		}
		t.known[key] = data
	}
	return db.Translate(rows.Err(), nil)
}

// growth is a tree that is being extended: what it was, and the hashes that are new.
type growth struct {
	size  int64
	old   tlog.HashReader
	fresh map[int64]tlog.Hash
}

// add appends a leaf.
func (g *growth) add(leaf tlog.Hash) error {
	hashes, err := tlog.StoredHashesForRecordHash(g.size, leaf, g)
	if err != nil {
		return err
	}
	first := tlog.StoredHashIndex(0, g.size)
	for i, h := range hashes {
		g.fresh[first+int64(i)] = h
	}
	g.size++
	return nil
}

// ReadHashes implements tlog.HashReader.
func (g *growth) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	var missing []int64
	var places []int
	for i, index := range indexes {
		h, ok := g.fresh[index]
		if !ok {
			missing, places = append(missing, index), append(places, i)
		}
		hashes[i] = h
	}
	if len(missing) == 0 {
		return hashes, nil
	}
	old, err := g.old.ReadHashes(missing)
	if err != nil {
		return nil, err
	}
	for i, h := range old {
		hashes[places[i]] = h
	}
	return hashes, nil
}

// store writes the tiles that differ from those of the tree's former size.
func (g *growth) store(ctx context.Context, q db.Querier, from int64) error {
	var levels, ns []int64
	var data [][]byte
	for _, tile := range tlog.NewTiles(tileHeight, from, g.size) {
		d, err := tlog.ReadTileData(tile, g)
		if err != nil {
			return err
		}
		levels, ns, data = append(levels, int64(tile.L)), append(ns, tile.N), append(data, d)
	}
	_, err := q.ExecContext(ctx, `INSERT INTO audit_tiles (level, n, data)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[])
		ON CONFLICT (level, n) DO UPDATE SET data = excluded.data`, levels, ns, data)
	return db.Translate(err, nil)
}

package auditlog

import (
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// frontier is a growing tree of which only the right edge is remembered: enough to know its root, in constant memory.
type frontier struct {
	size  int64
	roots []tlog.Hash // of the complete subtrees, the largest first

	wanted map[int64]bool      // sizes at which the root is to be noted
	noted  map[int64]tlog.Hash // the roots at those sizes
	upper  []upperHash         // what has been completed of the levels above the leaves, for comparison with the tiles
}

// upperHash is the next hash of a tile's level above 0.
type upperHash struct {
	level int
	hash  tlog.Hash
}

// extend returns the tree with these leaves appended; f stays as it is.
func (f frontier) extend(leaves []tlog.Hash) frontier {
	f.roots = slices.Clone(f.roots)
	f.noted, f.upper = map[int64]tlog.Hash{}, nil
	for _, leaf := range leaves {
		f.push(leaf)
		if f.wanted[f.size] {
			f.noted[f.size] = f.root()
		}
	}
	return f
}

func (f *frontier) push(h tlog.Hash) {
	f.size++
	for height := 1; f.size%(1<<height) == 0; height++ {
		last := len(f.roots) - 1
		h = tlog.NodeHash(f.roots[last], h)
		f.roots = f.roots[:last]
		if height%tileHeight == 0 {
			f.upper = append(f.upper, upperHash{height / tileHeight, h})
		}
	}
	f.roots = append(f.roots, h)
}

// root returns the tree's hash (RFC 6962, section 2.1).
func (f *frontier) root() tlog.Hash {
	if f.size == 0 {
		return emptyRoot
	}
	last := len(f.roots) - 1
	h := f.roots[last]
	for _, left := range slices.Backward(f.roots[:last]) {
		h = tlog.NodeHash(left, h)
	}
	return h
}

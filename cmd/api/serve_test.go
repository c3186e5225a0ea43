package main

import (
	"path/filepath"
	"sync"
	"testing"
)

// TestFirstKey starts instances at the same moment on one new state directory: all take the key that is kept there, and
// one of them shows it.
func TestFirstKey(t *testing.T) {
	configs := make([]config, 16)
	dir := filepath.Join(t.TempDir(), "new")
	shown := make([]generatedKey, len(configs))
	var instances sync.WaitGroup
	for i := range configs {
		configs[i].StateDir = dir
		instances.Go(func() {
			if err := makeStateDir(&configs[i]); err != nil {
				t.Error(err)
			}
			var err error
			if shown[i], err = firstKey(&configs[i]); err != nil {
				t.Error(err)
			}
		})
	}
	instances.Wait()
	times := 0
	for i := range configs {
		if configs[i].Server.RootKey != configs[0].Server.RootKey || len(configs[i].Server.RootKey) < 32 {
			t.Error("the instances have different keys, or none")
		}
		if shown[i].key != "" {
			times++
		}
	}
	if times != 1 {
		t.Errorf("the key is shown %d times", times)
	}
}

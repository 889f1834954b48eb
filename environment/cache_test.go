package environment

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func TestLayerKeyTellsInputsApart(t *testing.T) {
	t.Parallel()
	inputs := [][][]byte{
		{}, {[]byte("")}, {[]byte("a"), []byte("b")}, {[]byte("ab")}, {[]byte("ab"), []byte("")}, {[]byte("b"), []byte("a")}, {[]byte("1:a")},
	}
	seen := map[string]int{}
	for i, input := range inputs {
		key := layerKey(input...)
		test.Eq(t, key, layerKey(input...))
		if other, ok := seen[key]; ok {
			t.Errorf("inputs %q and %q have one key", inputs[other], input)
		}
		seen[key] = i
	}
}

func newTestCache(t *testing.T) *layerCache {
	t.Helper()
	c, err := openCache(t.Context(), filepath.Join(t.TempDir(), "cache"), func() {})
	must.NoError(t, err)
	t.Cleanup(func() { _ = c.close() })
	return c
}

// putLayer puts a layer of the content into the cache, under a key made of it.
func putLayer(t *testing.T, c *layerCache, kind, content string) Layer {
	t.Helper()
	path := filepath.Join(t.TempDir(), "layer")
	must.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	layer := Layer{Key: layerKey([]byte(content)), Size: int64(len(content))}
	must.NoError(t, c.put(kind, layer, path))
	return layer
}

func TestCacheKeepsLayersByKindAndKey(t *testing.T) {
	t.Parallel()
	c := newTestCache(t)
	layer := putLayer(t, c, "rootfs", "one")
	must.Eq(t, &layer, c.get("rootfs", layer.Key))
	must.Nil(t, c.get("packages", layer.Key))
	must.Nil(t, c.get("rootfs", layerKey([]byte("two"))))
}

func TestCacheHasNoLayerThatIsNotWhole(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(c *layerCache, key string) error{
		"no layer":      func(c *layerCache, key string) error { return os.Remove(c.blob("rootfs", key)) },
		"half a layer":  func(c *layerCache, key string) error { return os.Truncate(c.blob("rootfs", key), 1) },
		"half a record": func(c *layerCache, key string) error { return os.Truncate(c.record("rootfs", key), 5) },
		"another's record": func(c *layerCache, key string) error {
			return os.WriteFile(c.record("rootfs", key), []byte(`{"key":"x"}`), 0o644)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newTestCache(t)
			layer := putLayer(t, c, "rootfs", "content")
			must.NoError(t, damage(c, layer.Key))
			must.Nil(t, c.get("rootfs", layer.Key))
			putLayer(t, c, "rootfs", "content")
			must.NotNil(t, c.get("rootfs", layer.Key))
		})
	}
}

func TestCacheKeepsTheLastUsedLayers(t *testing.T) {
	t.Parallel()
	c := newTestCache(t)
	var layers []Layer
	for i := range keptLayers {
		layer := putLayer(t, c, "runtime", fmt.Sprint(i))
		old := time.Now().Add(time.Duration(i-10) * time.Hour)
		must.NoError(t, os.Chtimes(c.record("runtime", layer.Key), old, old))
		layers = append(layers, layer)
	}
	other := putLayer(t, c, "rootfs", "another kind")
	must.NotNil(t, c.get("runtime", layers[0].Key))
	putLayer(t, c, "runtime", "newest")
	test.NotNil(t, c.get("runtime", layers[0].Key), test.Sprint("the oldest, but used last"))
	test.Nil(t, c.get("runtime", layers[1].Key))
	test.NotNil(t, c.get("runtime", layers[2].Key))
	test.NotNil(t, c.get("rootfs", other.Key))
	files, err := filepath.Glob(filepath.Join(c.dir, "runtime-*"))
	must.NoError(t, err)
	test.Len(t, 2*keptLayers, files)
}

func TestCacheSweepsWhatAKilledBuildLeft(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must.NoError(t, os.MkdirAll(filepath.Join(dir, tempPrefix+"123", "rootfs", "etc"), 0o755))
	c, err := openCache(t.Context(), dir, func() {})
	must.NoError(t, err)
	t.Cleanup(func() { _ = c.close() })
	left, err := filepath.Glob(filepath.Join(dir, tempPrefix+"*"))
	must.NoError(t, err)
	must.SliceEmpty(t, left)
}

func TestOneBuildAtATime(t *testing.T) {
	t.Parallel()
	first := newTestCache(t)
	ctx, cancel := context.WithCancel(t.Context())
	// Cancelled only once it waits.
	_, err := openCache(ctx, first.dir, cancel)
	must.ErrorIs(t, err, context.Canceled)

	// The second gets in when the first is done.
	second, err := openCache(t.Context(), first.dir, func() { _ = first.close() })
	must.NoError(t, err)
	must.NoError(t, second.close())
}

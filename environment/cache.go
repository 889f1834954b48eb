package environment

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// layerCache keeps finished layers by the key of their inputs: KIND-KEY.json says what the layer is, KIND-KEY.tar.gz is the layer. The
// record is written last; a layer without one does not exist.
type layerCache struct {
	dir  string
	lock *os.File
}

// keptLayers is how many layers of a kind stay in the cache: the one in use and a few for going back and forth.
const keptLayers = 3

// tempPrefix begins the names of the folders that builds work in.
const tempPrefix = "build-"

// lockPoll is how often a taken lock is asked for again.
const lockPoll = 200 * time.Millisecond

// openCache opens the cache for one build. Another build on the same cache is waited for, which busy tells.
func openCache(ctx context.Context, dir string, busy func()) (*layerCache, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open build cache: %w", err)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open build cache: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(abs, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open build cache: %w", err)
	}
	c := &layerCache{dir: abs, lock: f}
	if err := c.waitForLock(ctx, busy); err != nil {
		return nil, errors.Join(fmt.Errorf("open build cache %s: %w", abs, err), f.Close())
	}
	if err := c.sweep(); err != nil {
		return nil, errors.Join(fmt.Errorf("open build cache %s: %w", abs, err), f.Close())
	}
	return c, nil
}

func (c *layerCache) waitForLock(ctx context.Context, busy func()) error {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for told := false; ; told = true {
		err := unix.Flock(int(c.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		if !told {
			busy()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for another build: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// sweep removes what a killed build left: under the lock, no other build is at work.
func (c *layerCache) sweep() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			if err := os.RemoveAll(filepath.Join(c.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *layerCache) close() error { return c.lock.Close() }

// temp makes a folder to build in, on the cache's own disk, so that a finished layer can be moved into place.
func (c *layerCache) temp() (string, error) {
	dir, err := os.MkdirTemp(c.dir, tempPrefix)
	if err != nil {
		return "", err
	}
	// Debian's tools give up their rights for downloads and must get through.
	return dir, os.Chmod(dir, 0o755)
}

func (c *layerCache) record(kind, key string) string {
	return filepath.Join(c.dir, kind+"-"+key[:32]+".json")
}

func (c *layerCache) blob(kind, key string) string {
	return filepath.Join(c.dir, kind+"-"+key[:32]+".tar.gz")
}

// get returns a finished layer, or nil when there is none that is whole.
func (c *layerCache) get(kind, key string) *Layer {
	raw, err := os.ReadFile(c.record(kind, key))
	if err != nil {
		return nil
	}
	var layer Layer
	if json.Unmarshal(raw, &layer) != nil || layer.Key != key {
		return nil
	}
	info, err := os.Stat(c.blob(kind, key))
	if err != nil || info.Size() != layer.Size {
		return nil
	}
	now := time.Now()
	// The times order what is kept; it does not matter when they cannot be set.
	_ = os.Chtimes(c.record(kind, key), now, now)
	return &layer
}

// put moves a finished layer from the file path into the cache.
func (c *layerCache) put(kind string, layer Layer, path string) error {
	raw, err := json.Marshal(layer)
	if err != nil {
		return err
	}
	if err := os.Remove(c.record(kind, layer.Key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(path, c.blob(kind, layer.Key)); err != nil {
		return err
	}
	record := path + ".json"
	if err := os.WriteFile(record, raw, 0o644); err != nil {
		return err
	}
	if err := os.Rename(record, c.record(kind, layer.Key)); err != nil {
		return err
	}
	return c.prune(kind)
}

// drop forgets a layer that turned out to be damaged.
func (c *layerCache) drop(kind, key string) error {
	return errors.Join(os.Remove(c.record(kind, key)), os.Remove(c.blob(kind, key)))
}

// prune removes all layers of a kind but the last used ones.
func (c *layerCache) prune(kind string) error {
	records, err := filepath.Glob(filepath.Join(c.dir, kind+"-*.json"))
	if err != nil {
		return err
	}
	used := map[string]time.Time{}
	for _, record := range records {
		info, err := os.Stat(record)
		if err != nil {
			return err
		}
		used[record] = info.ModTime()
	}
	slices.SortFunc(records, func(a, b string) int { return cmp.Or(used[b].Compare(used[a]), cmp.Compare(a, b)) })
	for _, record := range records[min(keptLayers, len(records)):] {
		if err := errors.Join(os.Remove(record), os.Remove(strings.TrimSuffix(record, ".json")+".tar.gz")); err != nil {
			return err
		}
	}
	return nil
}

// layerKey names inputs: any change of any of them, or of their number, gives another key.
func layerKey(inputs ...[]byte) string {
	h := sha256.New()
	for _, input := range inputs {
		_, _ = fmt.Fprintf(h, "%d:", len(input))
		h.Write(input)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// fileDigest returns the sha256 of a file's content.
func fileDigest(path string) (string, error) {
	h := sha256.New()
	if err := copyFile(h, path); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// lockFile serialises changes of the index between processes. It is empty and stays.
const lockFile = ".lock"

// lockPoll is how often a taken lock is asked for again; flock itself cannot be given up when a context ends.
const lockPoll = 20 * time.Millisecond

// readIndex reads index.json. A layout without one has no tags: it is written with the first.
func (l *Layout) readIndex() (*ocispec.Index, error) {
	index := &ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	raw, err := os.ReadFile(filepath.Join(l.dir, ocispec.ImageIndexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return index, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, index); err != nil {
		return nil, fmt.Errorf("%w: read %s: %w", ErrCorrupt, ocispec.ImageIndexFile, err)
	}
	return index, nil
}

// changeIndex reads the index, lets change edit it and replaces it, alone among all processes.
func (l *Layout) changeIndex(ctx context.Context, change func(*ocispec.Index)) error {
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	index, err := l.readIndex()
	if err != nil {
		return err
	}
	change(index)
	raw, err := marshalIndex(index)
	if err != nil {
		return err
	}
	return explain(writeWhole(l.dir, ocispec.ImageIndexFile, raw), l.dir)
}

func (l *Layout) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(l.dir, lockFile), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, explain(err, l.dir)
	}
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("lock image layout: %w", err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("wait for the lock of the image layout: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// setTag takes the tag from where it was and gives it to desc. An entry without a tag gives way to one with.
func setTag(index *ocispec.Index, desc ocispec.Descriptor, ref string) {
	index.Manifests = slices.DeleteFunc(index.Manifests, func(m ocispec.Descriptor) bool {
		name := m.Annotations[ocispec.AnnotationRefName]
		return name == ref || (name == "" && m.Digest == desc.Digest)
	})
	desc.Annotations = map[string]string{ocispec.AnnotationRefName: ref}
	index.Manifests = append(index.Manifests, desc)
}

func tagsOf(index *ocispec.Index) []string {
	tags := []string{}
	for _, m := range index.Manifests {
		if name := m.Annotations[ocispec.AnnotationRefName]; name != "" {
			tags = append(tags, name)
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}

// marshalIndex writes the index in one order, whatever order the tags came in.
func marshalIndex(index *ocispec.Index) ([]byte, error) {
	slices.SortStableFunc(index.Manifests, func(a, b ocispec.Descriptor) int {
		return cmp.Or(
			cmp.Compare(a.Annotations[ocispec.AnnotationRefName], b.Annotations[ocispec.AnnotationRefName]),
			cmp.Compare(a.Digest, b.Digest))
	})
	if index.Manifests == nil {
		index.Manifests = []ocispec.Descriptor{}
	}
	return json.Marshal(index)
}

// writeWhole puts raw into dir/name so that the file has either its old or its new content, also after a crash or on a full disk.
func writeWhole(dir, name string, raw []byte) (err error) {
	f, err := os.CreateTemp(dir, "."+name+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(raw)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, name))
}

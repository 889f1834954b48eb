package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/continuity/fs"
	"github.com/moby/sys/user"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
	"github.com/nomad-promptflow/nomad-promptflow/driver/spec"
)

// LookupUser reads the passwd and group files of the image through a view that is gone when it returns.
func (e *Engine) LookupUser(
	ctx context.Context, image *driver.Image, name string, groups []string,
) (found spec.User, err error) {
	ctx = e.namespaced(ctx)
	key, err := execID()
	if err != nil {
		return spec.User{}, err
	}
	ctx, done, err := e.client.WithLease(ctx, leases.WithRandomID(), leases.WithExpiration(cleanupTimeout))
	if err != nil {
		return spec.User{}, fmt.Errorf("make lease: %w", explain(err))
	}
	snapshots := e.client.SnapshotService(e.config.Snapshotter)
	key = "user-" + key
	defer func() {
		ctx, cancel := e.cleanup(ctx)
		defer cancel()
		err = errors.Join(err, ignoreAbsent(snapshots.Remove(ctx, key)), ignoreAbsent(done(ctx)))
	}()
	mounts, err := snapshots.View(ctx, key, image.RootFS)
	if err != nil {
		return spec.User{}, fmt.Errorf("view image: %w", explain(err))
	}
	err = mount.WithReadonlyTempMount(ctx, mounts, func(root string) error {
		var err error
		found, err = userIn(root, name, groups)
		return err
	})
	return found, err
}

// userIn reads name by the files below root. An image may have neither file.
func userIn(root, name string, groups []string) (spec.User, error) {
	passwd, err := openIn(root, "/etc/passwd")
	if err != nil {
		return spec.User{}, err
	}
	defer passwd.Close()
	group, err := openIn(root, "/etc/group")
	if err != nil {
		return spec.User{}, err
	}
	defer group.Close()
	found, err := user.GetExecUser(name, nil, passwd, group)
	if err != nil {
		return spec.User{}, err
	}
	parsed := spec.User{UID: uint32(found.Uid), GID: uint32(found.Gid)}
	more, err := groupsIn(root, groups)
	if err != nil {
		return spec.User{}, err
	}
	for _, gid := range slices.Concat(found.Sgids, more) {
		if !slices.Contains(parsed.Additional, uint32(gid)) {
			parsed.Additional = append(parsed.Additional, uint32(gid))
		}
	}
	return parsed, nil
}

// groupsIn reads groups, by name or number, by the group file below root.
func groupsIn(root string, groups []string) ([]int, error) {
	if len(groups) == 0 {
		return nil, nil
	}
	file, err := openIn(root, "/etc/group")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	found, err := user.GetAdditionalGroups(groups, file)
	if err != nil {
		return nil, fmt.Errorf("group_add: %w", err)
	}
	return found, nil
}

// openIn opens a file below root, links in it taken as the container would take them. A file that is missing is empty.
func openIn(root, path string) (io.ReadCloser, error) {
	resolved, err := fs.RootPath(root, path)
	if err != nil {
		return nil, fmt.Errorf("open %s of image: %w", path, err)
	}
	file, err := os.Open(resolved)
	if errors.Is(err, os.ErrNotExist) {
		return io.NopCloser(emptyReader{}), nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s of image: %w", path, err)
	}
	return file, nil
}

type emptyReader struct{}

func (emptyReader) Read([]byte) (int, error) { return 0, io.EOF }

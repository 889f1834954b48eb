package driver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nomad-promptflow/nomad-promptflow/driver/spec"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// heldFiles are files that were looked at and found allowed. They stay open until the container's mounts are made, and the
// runtime is given the open files: what a task in the same allocation puts in their place meanwhile is not mounted.
type heldFiles struct{ files []*os.File }

// hold keeps fd, and returns the path by which a runtime on this node reaches the very same file.
func (h *heldFiles) hold(fd int, name string) string {
	h.files = append(h.files, os.NewFile(uintptr(fd), name))
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
}

// Close lets go of all.
func (h *heldFiles) Close() error {
	var failed []error
	for _, file := range h.files {
		failed = append(failed, file.Close())
	}
	h.files = nil
	return errors.Join(failed...)
}

// taskMounts are the mounts that the task itself asks for.
func taskMounts(
	held *heldFiles, volumes VolumesConfig, config *plugin.TaskConfig, options TaskConfig,
) ([]spec.Mount, error) {
	var mounts []spec.Mount
	for i, mount := range options.Mounts {
		made, err := taskMount(held, volumes, config, mount, false)
		if err != nil {
			return nil, fmt.Errorf("mount[%d]: %w", i, err)
		}
		mounts = append(mounts, made)
	}
	for _, text := range options.Volumes {
		mount, err := parseVolume(text)
		if err != nil {
			return nil, err
		}
		made, err := taskMount(held, volumes, config, mount, true)
		if err != nil {
			return nil, fmt.Errorf("volumes %q: %w", text, err)
		}
		mounts = append(mounts, made)
	}
	return mounts, nil
}

// taskMount is one mount. With create a folder that is missing in the allocation is made, as docker does.
func taskMount(
	held *heldFiles, volumes VolumesConfig, config *plugin.TaskConfig, mount MountConfig, create bool,
) (spec.Mount, error) {
	made := spec.Mount{Target: mount.Target, ReadOnly: mount.Readonly, Propagation: mount.BindOptions.Propagation}
	var err error
	switch mount.Type {
	case mountTmpfs:
		made.Tmpfs, made.Size, made.Mode = true, mount.TmpfsOptions.Size, mount.TmpfsOptions.Mode
	case mountVolume:
		made.Source, err = namedVolume(volumes, mount.Source)
	default:
		made.Source, err = bindSource(held, volumes, config, mount, create)
	}
	return made, err
}

// namedVolume is the folder of a volume, made when it is first used.
func namedVolume(volumes VolumesConfig, name string) (string, error) {
	dir := filepath.Join(volumes.Path, name)
	if err := os.MkdirAll(volumes.Path, 0o711); err != nil {
		return "", fmt.Errorf("make folder of volumes: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("make volume %s: %w", name, err)
	}
	return dir, nil
}

// bindSource opens the source of a bind mount where the task may have it: below its own allocation always, elsewhere where the
// operator lets it.
func bindSource(
	held *heldFiles, volumes VolumesConfig, config *plugin.TaskConfig, mount MountConfig, create bool,
) (string, error) {
	source := filepath.Clean(mount.Source)
	if !filepath.IsAbs(source) {
		source = filepath.Join(taskDir(config), source)
	}
	if relative, ok := below(config.AllocDir, source); ok {
		return allocSource(held, config.AllocDir, relative, mount, create)
	}
	return nodeSource(held, volumes, source)
}

// below is path relative to dir, when it is dir or lies in it as far as the words go.
func below(dir, path string) (relative string, ok bool) {
	relative, err := filepath.Rel(dir, path)
	if err != nil || relative == ".." || strings.HasPrefix(relative, "../") {
		return "", false
	}
	return relative, true
}

// logsFolder is the agent's folder of log pipes, relative to an allocation's.
const logsFolder = "alloc/logs"

// allocSource opens a file of the allocation. Links are followed as long as they stay in it. The log pipes must not be
// writable to a task, which could put something else in their place.
func allocSource(held *heldFiles, allocDir, relative string, mount MountConfig, create bool) (string, error) {
	_, logsBelow := below(relative, logsFolder)
	if _, inLogs := below(logsFolder, relative); (inLogs || logsBelow) && !mount.Readonly {
		return "", fmt.Errorf("source %q: must be readonly, since the agent's log pipes are in it", mount.Source)
	}
	root, err := os.OpenRoot(allocDir)
	if err != nil {
		return "", fmt.Errorf("open folder of the allocation: %w", err)
	}
	defer root.Close()
	if create {
		if _, err := root.Stat(relative); errors.Is(err, os.ErrNotExist) {
			if err := root.MkdirAll(relative, 0o755); err != nil {
				return "", fmt.Errorf("source %q: make folder: %w", mount.Source, err)
			}
		}
	}
	dir, err := root.Open(".")
	if err != nil {
		return "", fmt.Errorf("open folder of the allocation: %w", err)
	}
	defer dir.Close()
	fd, err := unix.Openat2(int(dir.Fd()), relative, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ENOSYS) {
		// A kernel before 5.6: no link is followed at all.
		fd, err = openBeneath(allocDir, strings.Split(relative, "/")...)
	}
	switch {
	case errors.Is(err, unix.EXDEV):
		return "", fmt.Errorf("source %q: leads out of the allocation through a link", mount.Source)
	case err != nil:
		return "", fmt.Errorf("source %q: %w", mount.Source, err)
	}
	return held.hold(fd, relative), nil
}

// nodeSource opens a file of the node. What counts is where it really is, links followed.
func nodeSource(held *heldFiles, volumes VolumesConfig, source string) (string, error) {
	if !volumes.Enabled {
		return "", fmt.Errorf("source %q: is outside the allocation, and the plugin's volumes.enabled is not set on this node", source)
	}
	fd, err := unix.Open(source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("source %q: %w", source, err)
	}
	path := held.hold(fd, source)
	real, err := os.Readlink(path)
	if err != nil {
		return "", fmt.Errorf("source %q: %w", source, err)
	}
	if !allowedPath(volumes.AllowedPaths, real) {
		return "", fmt.Errorf("source %q: is at %s, which the plugin's volumes.allowed_paths on this node do not have (%s)",
			source, real, strings.Join(volumes.AllowedPaths, ", "))
	}
	return path, nil
}

// allowedPath says whether a real path lies in one of the folders, none meaning any.
func allowedPath(folders []string, real string) bool {
	if len(folders) == 0 {
		return true
	}
	for _, folder := range folders {
		// A folder that is itself a link stands for what it leads to.
		if resolved, err := filepath.EvalSymlinks(folder); err == nil {
			folder = resolved
		}
		if _, ok := below(folder, real); ok {
			return true
		}
	}
	return false
}

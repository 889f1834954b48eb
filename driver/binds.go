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

// heldFiles are sources of bind mounts, opened when they were looked at and found allowed. A runtime opens them again by their
// path, at which a task of the same allocation may have put something else meanwhile: so what it mounted is compared with
// what was looked at before the container's process runs.
type heldFiles struct{ files []heldFile }

type heldFile struct {
	*os.File
	target string // inside the container
}

// hold keeps fd for the mount at target, and returns where the file really is.
func (h *heldFiles) hold(fd int, target string) (string, error) {
	file := os.NewFile(uintptr(fd), target)
	h.files = append(h.files, heldFile{File: file, target: target})
	real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", fmt.Errorf("find source of %s: %w", target, err)
	}
	return real, nil
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

// verify compares what is mounted in the container of process pid, which does not run yet, with what was looked at.
func (h *heldFiles) verify(pid int) error {
	if len(h.files) == 0 {
		return nil
	}
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("look into container: %w", err)
	}
	defer unix.Close(root)
	for _, file := range h.files {
		mounted, err := sameFile(root, file)
		if err != nil {
			return fmt.Errorf("look at mount %s of container: %w", file.target, err)
		}
		if !mounted {
			return fmt.Errorf("mount %s: its source was changed while it was being mounted", file.target)
		}
	}
	return nil
}

// sameFile says whether a file is the one at its target below root.
func sameFile(root int, file heldFile) (bool, error) {
	fd, err := unix.Openat2(root, file.target, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT,
	})
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	var seen, held unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &seen), unix.Fstat(int(file.Fd()), &held)); err != nil {
		return false, err
	}
	return seen.Dev == held.Dev && seen.Ino == held.Ino, nil
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
	return nodeSource(held, volumes, source, mount.Target)
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
	switch {
	case errors.Is(err, unix.EXDEV):
		return "", fmt.Errorf("source %q: leads out of the allocation through a link", mount.Source)
	case err != nil:
		return "", fmt.Errorf("source %q: %w", mount.Source, err)
	}
	return held.hold(fd, mount.Target)
}

// nodeSource opens a file of the node. What counts is where it really is, links followed.
func nodeSource(held *heldFiles, volumes VolumesConfig, source, target string) (string, error) {
	if !volumes.Enabled {
		return "", fmt.Errorf("source %q: is outside the allocation, and the plugin's volumes.enabled is not set on this node", source)
	}
	fd, err := unix.Open(source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("source %q: %w", source, err)
	}
	real, err := held.hold(fd, target)
	if err != nil {
		return "", err
	}
	if !allowedPath(volumes.AllowedPaths, real) {
		return "", fmt.Errorf("source %q: is at %s, which the plugin's volumes.allowed_paths on this node do not have (%s)",
			source, real, strings.Join(volumes.AllowedPaths, ", "))
	}
	return real, nil
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

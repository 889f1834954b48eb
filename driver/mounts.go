package driver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nomad-promptflow/nomad-promptflow/driver/spec"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// taskDirs are the mounts of the folders that every task of Nomad has. The agent's own log folder lies inside the
// allocation's shared one and is read-only to the task, which could otherwise put links in the place of the log FIFOs.
func taskDirs(config *plugin.TaskConfig) ([]spec.Mount, error) {
	shared, own := filepath.Join(config.AllocDir, "alloc"), taskDir(config)
	mounts := []spec.Mount{
		{Source: shared, Target: "/alloc"},
		{Source: filepath.Join(own, "local"), Target: "/local"},
		{Source: filepath.Join(own, "secrets"), Target: "/secrets"},
	}
	for _, mount := range mounts {
		if info, err := os.Lstat(mount.Source); err != nil || !info.IsDir() {
			return nil, fmt.Errorf("mount task folder %s: not a folder", mount.Source)
		}
	}
	logs := filepath.Join(shared, "logs")
	switch info, err := os.Lstat(logs); {
	case errors.Is(err, os.ErrNotExist):
		return mounts, nil
	case err != nil:
		return nil, fmt.Errorf("mount log folder: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("mount log folder %s: not a folder", logs)
	}
	readOnlyLogs := spec.Mount{Source: logs, Target: "/alloc/logs", ReadOnly: true}
	return append(mounts, readOnlyLogs), nil
}

// taskDir is the task's own folder inside its allocation.
func taskDir(config *plugin.TaskConfig) string {
	return filepath.Join(config.AllocDir, config.Name)
}

// filesFolder is the folder in a task's own that holds them.
const filesFolder = ".promptflow"

// filesDir is where the driver keeps the files it makes for a container, out of the task's reach.
func filesDir(config *plugin.TaskConfig, id string) string {
	return filepath.Join(taskDir(config), filesFolder, id)
}

// agentMounts are the volumes and device files that the agent asks for.
func agentMounts(mounts []plugin.Mount) []spec.Mount {
	var list []spec.Mount
	for _, m := range mounts {
		list = append(list, spec.Mount{
			Source: m.HostPath, Target: m.TaskPath, ReadOnly: m.ReadOnly, Propagation: m.Propagation,
		})
	}
	return list
}

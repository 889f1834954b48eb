package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// residue is what there is of a container outside of the engine.
type residue struct {
	// files is the folder of the driver's own files of it, empty when that is not known.
	files string
	// cgroup is relative to the root of each hierarchy. A runtime that was cut off while it made the container leaves it.
	cgroup string
}

func (s taskState) residue() residue { return residue{files: s.FilesDir, cgroup: s.CgroupsPath} }

// residueOf reads it from a container's labels. A label is no reason to remove just anything.
func residueOf(container string, labels map[string]string) residue {
	found := residue{cgroup: ownCgroup(container)}
	encoded, err := stateOfLabels(labels)
	if err != nil {
		return found
	}
	state, err := decodeState(encoded)
	if err != nil || state.ContainerID != container {
		return found
	}
	if strings.HasPrefix(filepath.Base(state.CgroupsPath), labels[labelAllocID]+".") {
		found.cgroup = state.CgroupsPath
	}
	if filepath.Base(state.FilesDir) == container && filepath.Base(filepath.Dir(state.FilesDir)) == filesFolder {
		found.files = state.FilesDir
	}
	return found
}

// remove removes it. The container must be gone.
func (r residue) remove(ctx context.Context) error {
	return errors.Join(removeFiles(r.files), hostCgroups().remove(ctx, r.cgroup))
}

// ownCgroups is where containers are counted for which the agent has no place.
const ownCgroups = "/nomad-promptflow/"

func ownCgroup(container string) string { return ownCgroups + container }

// How often a cgroup's last processes are killed until they are gone, and how long they get each time.
const (
	killAttempts = 25
	killPause    = 20 * time.Millisecond
)

// remove removes the cgroup of a container that is no more, with what may still run in it. One that the agent made is the
// agent's to remove.
func (c cgroups) remove(ctx context.Context, cgroupsPath string) error {
	if strings.Trim(cgroupsPath, "/.") == "" || (c.version == 2 && !strings.HasPrefix(cgroupsPath, ownCgroups)) {
		return nil
	}
	for range killAttempts {
		gone := true
		for _, hierarchy := range c.hierarchies() {
			gone = removeCgroup(filepath.Join(hierarchy, cgroupsPath)) && gone
		}
		if gone {
			return nil
		}
		sleep(ctx, killPause)
	}
	return fmt.Errorf("remove cgroup %s: its processes do not end", cgroupsPath)
}

// hierarchies are the folders of the controllers, or with version 2 the one of all.
func (c cgroups) hierarchies() []string {
	if c.version == 2 {
		return []string{c.root}
	}
	entries, err := os.ReadDir(c.root)
	if err != nil {
		return nil
	}
	var dirs []string
	for _, entry := range entries {
		dirs = append(dirs, filepath.Join(c.root, entry.Name()))
	}
	return dirs
}

// removeCgroup removes a cgroup and those in it, and says whether it is gone. What runs in one that is not is killed.
func removeCgroup(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			removeCgroup(filepath.Join(dir, entry.Name()))
		}
	}
	err = os.Remove(dir)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return true
	}
	killAll(dir)
	return false
}

// killAll kills the processes of a cgroup.
func killAll(dir string) {
	content, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return
	}
	for field := range strings.FieldsSeq(string(content)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

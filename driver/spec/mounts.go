package spec

import (
	"fmt"
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Mount shows a file or folder of the node inside the container.
type Mount struct {
	Source, Target string
	ReadOnly       bool
	// Propagation is Nomad's word: private (also when empty), host-to-task or bidirectional.
	Propagation string
}

func buildMounts(task Task) ([]specs.Mount, error) {
	mounts := systemMounts()
	for _, m := range task.Mounts {
		mount, err := m.spec()
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, mount)
	}
	return mounts, nil
}

func (m Mount) spec() (specs.Mount, error) {
	if !path.IsAbs(m.Target) {
		return specs.Mount{}, fmt.Errorf("build spec: mount target %q: must be absolute", m.Target)
	}
	if !path.IsAbs(m.Source) {
		return specs.Mount{}, fmt.Errorf("build spec: mount source %q: must be absolute", m.Source)
	}
	propagation, err := propagationOption(m.Propagation)
	if err != nil {
		return specs.Mount{}, err
	}
	access := "rw"
	if m.ReadOnly {
		access = "ro"
	}
	return specs.Mount{
		Destination: path.Clean(m.Target),
		Source:      m.Source,
		Type:        "bind",
		Options:     []string{"rbind", propagation, access},
	}, nil
}

func propagationOption(word string) (string, error) {
	switch word {
	case "", "private":
		return "rprivate", nil
	case "host-to-task":
		return "rslave", nil
	case "bidirectional":
		return "rshared", nil
	}
	return "", fmt.Errorf("build spec: mount propagation %q: must be private, host-to-task or bidirectional", word)
}

// systemMounts are the file systems that every container has.
func systemMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs",
			Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		// A program sizes itself by its own limits, which it finds here.
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
	}
}

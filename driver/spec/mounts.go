package spec

import (
	"fmt"
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Mount shows a file or folder of the node inside the container, or is a tmpfs.
type Mount struct {
	Source, Target string
	ReadOnly       bool
	// Propagation is Nomad's word (private, also when empty, host-to-task or bidirectional) or mount's own (rprivate,
	// rslave or rshared, with or without the r).
	Propagation string
	// Tmpfs makes a tmpfs, which has no Source. Size is in bytes, 0 for no limit; Mode is octal, empty for 1777.
	Tmpfs bool
	Size  int64
	Mode  string
}

func buildMounts(task Task) ([]specs.Mount, error) {
	mounts := systemMounts(task)
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
	if m.Tmpfs {
		return m.tmpfs(), nil
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

func (m Mount) tmpfs() specs.Mount {
	mode := m.Mode
	if mode == "" {
		mode = "1777"
	}
	options := []string{"nosuid", "nodev", "noexec", "mode=" + mode}
	if m.Size > 0 {
		options = append(options, fmt.Sprintf("size=%d", m.Size))
	}
	if m.ReadOnly {
		options = append(options, "ro")
	}
	return specs.Mount{Destination: path.Clean(m.Target), Source: "tmpfs", Type: "tmpfs", Options: options}
}

// propagations are mount's words for Nomad's and docker's.
var propagations = map[string]string{
	"": "rprivate", "private": "rprivate", "rprivate": "rprivate",
	"host-to-task": "rslave", "slave": "rslave", "rslave": "rslave",
	"bidirectional": "rshared", "shared": "rshared", "rshared": "rshared",
}

// IsPropagation says whether a job may ask for this propagation of a mount.
func IsPropagation(word string) bool { return word != "" && propagations[word] != "" }

func propagationOption(word string) (string, error) {
	if option, ok := propagations[word]; ok {
		return option, nil
	}
	return "", fmt.Errorf("build spec: mount propagation %q: must be private, host-to-task or bidirectional", word)
}

// systemMounts are the file systems that every container has.
func systemMounts(task Task) []specs.Mount {
	access := "ro"
	if task.Privileged {
		access = "rw"
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs",
			Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		sharedMemory(task),
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", access}},
		// A program sizes itself by its own limits, which it finds here.
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"nosuid", "noexec", "nodev", "relatime", access}},
	}
}

// sharedMemory is the task's own, or the node's with whose processes it shares it.
func sharedMemory(task Task) specs.Mount {
	if task.Host.IPC {
		return specs.Mount{
			Destination: "/dev/shm", Source: "/dev/shm", Type: "bind", Options: []string{"rbind", "nosuid", "noexec", "nodev"},
		}
	}
	size := task.ShmSize
	if size == 0 {
		size = defaultShmSize
	}
	return specs.Mount{
		Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
		Options: []string{"nosuid", "noexec", "nodev", "mode=1777", fmt.Sprintf("size=%d", size)},
	}
}

const defaultShmSize = 64 << 20

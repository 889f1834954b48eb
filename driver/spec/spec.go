// Package spec turns a task into the OCI runtime specification of its container.
//
// It is pure: it opens no file and asks no daemon, so that every rule of it stands in a table test. What has to be
// looked up on the node first (a device's numbers, the image's user, the cgroup version) comes in as a value of [Task]
// and [Host]; [Build] does the rest.
package spec

import (
	"errors"
	"fmt"
	"path"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Task is everything that decides how a container looks.
type Task struct {
	// Image is the configuration that the image itself carries.
	Image ocispec.ImageConfig
	// Entrypoint, Command and Args override the image's as they do for docker: see [Args].
	Entrypoint []string
	Command    string
	Args       []string
	// Env is the final environment, made with [Env].
	Env []string
	// WorkDir is the working directory; empty means the image's, else "/".
	WorkDir string
	TTY     bool
	// Init is the program, inside the container, that runs the command and reaps its orphans; empty for none.
	Init []string
	// Hostname of the container's own UTS namespace.
	Hostname string
	User     User

	ReadonlyRootfs bool
	// Capabilities are in the kernel's names, see [Capabilities]. A privileged task has all of [Host.Capabilities] instead.
	Capabilities    []string
	Privileged      bool
	NoNewPrivileges bool
	// Seccomp is nil for what the engine does by itself.
	Seccomp         *specs.LinuxSeccomp
	ApparmorProfile string
	Sysctl          map[string]string
	Rlimits         []specs.POSIXRlimit
	// Host are the node's namespaces that the task shares.
	Host SharedNamespaces
	// ShmSize is the size of /dev/shm in bytes.
	ShmSize int64
	// Mounts come after the file systems that every container has, in this order.
	Mounts    []Mount
	Devices   []Device
	Resources Resources
	// CgroupsPath is absolute and relative to the root of each cgroup hierarchy.
	CgroupsPath string
	Network     Network
}

// Host says what of the node the specification depends on.
type Host struct {
	// CgroupVersion is 1 or 2.
	CgroupVersion int
	// SwapAccounting says whether the kernel can limit swap. It always can with cgroup 2.
	SwapAccounting bool
	// Capabilities are all that a process of this node can have.
	Capabilities []string
}

// SharedNamespaces are namespaces of the node that a task has instead of its own.
type SharedNamespaces struct{ PID, IPC, UTS, Cgroup bool }

// Network says which network namespace the container is in. The zero value is a new one with nothing but a loopback.
type Network struct {
	// Host shares the node's network.
	Host bool
	// Namespace is the path of a namespace to join.
	Namespace string
}

// Build returns the specification of the container of task.
func Build(task Task, host Host) (*specs.Spec, error) {
	process, err := buildProcess(task, host)
	if err != nil {
		return nil, err
	}
	mounts, err := buildMounts(task)
	if err != nil {
		return nil, err
	}
	if !path.IsAbs(task.CgroupsPath) {
		return nil, errors.New("build spec: the cgroup path must be absolute")
	}
	if err := checkSysctls(task); err != nil {
		return nil, fmt.Errorf("build spec: %w", err)
	}
	resources, err := buildResources(task, host)
	if err != nil {
		return nil, fmt.Errorf("build spec: %w", err)
	}
	hostname := task.Hostname
	if task.Host.UTS {
		hostname = ""
	}
	return &specs.Spec{
		Version:  specs.Version,
		Hostname: hostname,
		Root:     &specs.Root{Path: "rootfs", Readonly: task.ReadonlyRootfs},
		Process:  process,
		Mounts:   mounts,
		Linux: &specs.Linux{
			CgroupsPath:   task.CgroupsPath,
			Namespaces:    namespaces(task, host),
			Resources:     resources,
			Devices:       deviceNodes(task.Devices),
			Seccomp:       task.Seccomp,
			Sysctl:        task.Sysctl,
			MaskedPaths:   maskedPaths(task),
			ReadonlyPaths: readonlyPaths(task),
		},
	}, nil
}

// namespaces are the container's own, but for those that the task shares with the node. Cgroup version 1 has no useful
// cgroup namespace: its mounts show the real paths whatever the namespace.
func namespaces(task Task, host Host) []specs.LinuxNamespace {
	list := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	for _, own := range []struct {
		kind   specs.LinuxNamespaceType
		shared bool
	}{
		{specs.PIDNamespace, task.Host.PID},
		{specs.IPCNamespace, task.Host.IPC},
		{specs.UTSNamespace, task.Host.UTS},
		{specs.CgroupNamespace, task.Host.Cgroup || host.CgroupVersion != 2},
	} {
		if !own.shared {
			list = append(list, specs.LinuxNamespace{Type: own.kind})
		}
	}
	if !task.Network.Host {
		list = append(list, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: task.Network.Namespace})
	}
	return list
}

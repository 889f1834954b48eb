// Package spec turns a task into the OCI runtime specification of its container.
//
// It is pure: it opens no file and asks no daemon, so that every rule of it stands in a table test. What has to be
// looked up on the node first (a device's numbers, the image's user, the cgroup version) comes in as a value of [Task]
// and [Host]; [Build] does the rest.
package spec

import (
	"errors"
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
	// Hostname of the container's own UTS namespace.
	Hostname string
	User     User

	ReadonlyRootfs bool
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
}

// Network says which network namespace the container is in. The zero value is a new one with nothing but a loopback.
type Network struct {
	// Host shares the node's network.
	Host bool
	// Namespace is the path of a namespace to join.
	Namespace string
}

// Build returns the specification of the container of task.
func Build(task Task, host Host) (*specs.Spec, error) {
	process, err := buildProcess(task)
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
	return &specs.Spec{
		Version:  specs.Version,
		Hostname: task.Hostname,
		Root:     &specs.Root{Path: "rootfs", Readonly: task.ReadonlyRootfs},
		Process:  process,
		Mounts:   mounts,
		Linux: &specs.Linux{
			CgroupsPath:   task.CgroupsPath,
			Namespaces:    namespaces(task.Network, host),
			Resources:     buildResources(task, host),
			Devices:       deviceNodes(task.Devices),
			MaskedPaths:   maskedPaths(),
			ReadonlyPaths: readonlyPaths(),
		},
	}, nil
}

// namespaces are the container's own, but for the network's when the task shares the node's. Cgroup version 1 has no
// useful cgroup namespace: its mounts show the real paths whatever the namespace.
func namespaces(network Network, host Host) []specs.LinuxNamespace {
	list := []specs.LinuxNamespace{
		{Type: specs.PIDNamespace},
		{Type: specs.IPCNamespace},
		{Type: specs.UTSNamespace},
		{Type: specs.MountNamespace},
	}
	if !network.Host {
		list = append(list, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: network.Namespace})
	}
	if host.CgroupVersion == 2 {
		list = append(list, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return list
}

package spec

import (
	"math"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The range of a cgroup's cpu shares.
const (
	minShares = 2
	maxShares = 262144
)

// Resources limit a container, in Nomad's numbers.
type Resources struct {
	// CPUMHz is the task's part of the node's compute; NodeMHz is all of it, 0 when unknown.
	CPUMHz, NodeMHz int64
	// Cpus is a list of cores to stay on ("0,2"), empty for all.
	Cpus string
	// MemoryMB is the reservation. MemoryMaxMB is the hard limit: 0 means MemoryMB, -1 none.
	MemoryMB, MemoryMaxMB int64
}

// Device is a node in the container's /dev and the right to use it.
type Device struct {
	Path         string
	Type         string // "c" or "b"
	Major, Minor int64
	Mode         os.FileMode
	UID, GID     uint32
	// Permissions are cgroup access: a subset of "rwm".
	Permissions string
}

func buildResources(task Task, host Host) *specs.LinuxResources {
	return &specs.LinuxResources{
		CPU:     cpu(task.Resources),
		Memory:  memory(task.Resources, host),
		Devices: deviceRules(task.Devices),
	}
}

// cpu turns MHz into shares, one for one. On a node with more compute than the kernel has shares they are scaled down
// for all tasks alike, so that their proportions stay.
func cpu(r Resources) *specs.LinuxCPU {
	shares := r.CPUMHz
	if r.NodeMHz > maxShares {
		shares = int64(math.Round(float64(r.CPUMHz) / float64(r.NodeMHz) * maxShares))
	}
	limited := uint64(min(max(shares, minShares), maxShares))
	return &specs.LinuxCPU{Shares: &limited, Cpus: r.Cpus}
}

const mebibyte = 1 << 20

// memory sets the hard limit, and no swap beyond it. Below a higher limit the reservation says to whom the kernel turns
// first when memory runs short.
func memory(r Resources, host Host) *specs.LinuxMemory {
	limit := r.MemoryMB * mebibyte
	if r.MemoryMaxMB != 0 {
		limit = r.MemoryMaxMB * mebibyte
	}
	m := &specs.LinuxMemory{}
	if reservation := r.MemoryMB * mebibyte; reservation > 0 && r.MemoryMaxMB != 0 {
		m.Reservation = &reservation
	}
	if limit <= 0 {
		return m
	}
	m.Limit = &limit
	if host.SwapAccounting || host.CgroupVersion == 2 {
		m.Swap = &limit
	}
	return m
}

// deviceRules deny everything first. What a container always needs (null, zero, urandom, terminals) the runtime itself
// allows.
func deviceRules(devices []Device) []specs.LinuxDeviceCgroup {
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, d := range devices {
		rules = append(rules, specs.LinuxDeviceCgroup{
			Allow: true, Type: d.Type, Major: &d.Major, Minor: &d.Minor, Access: d.Permissions,
		})
	}
	return rules
}

func deviceNodes(devices []Device) []specs.LinuxDevice {
	var nodes []specs.LinuxDevice
	for _, d := range devices {
		nodes = append(nodes, specs.LinuxDevice{
			Path: d.Path, Type: d.Type, Major: d.Major, Minor: d.Minor, FileMode: &d.Mode, UID: &d.UID, GID: &d.GID,
		})
	}
	return nodes
}

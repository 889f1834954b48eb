package spec

import (
	"errors"
	"fmt"
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
	// CPUQuota is how many microseconds of all processors the task may use in each CPUPeriod; 0 sets no limit.
	CPUQuota, CPUPeriod int64
	// Cpus is a list of cores to stay on ("0,2"), empty for all.
	Cpus string
	// MemoryMB is the reservation. MemoryMaxMB is the hard limit: 0 means MemoryMB, -1 none.
	MemoryMB, MemoryMaxMB int64
	// Swap is memory and swap together in bytes: 0 for no swap, -1 for no limit.
	Swap int64
	// Swappiness is 0 to 100, nil for the kernel's own.
	Swappiness *int64
	// Pids is how many processes and threads there may be; 0 sets no limit.
	Pids int64
	// OOMScoreAdj is 0 to 1000.
	OOMScoreAdj int
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

func buildResources(task Task, host Host) (*specs.LinuxResources, error) {
	limited, err := memory(task.Resources, host)
	if err != nil {
		return nil, err
	}
	resources := &specs.LinuxResources{
		CPU:     cpu(task.Resources),
		Memory:  limited,
		Devices: deviceRules(task),
	}
	if pids := task.Resources.Pids; pids > 0 {
		resources.Pids = &specs.LinuxPids{Limit: &pids}
	}
	return resources, nil
}

// cpu turns MHz into shares, one for one. On a node with more compute than the kernel has shares they are scaled down
// for all tasks alike, so that their proportions stay.
func cpu(r Resources) *specs.LinuxCPU {
	shares := r.CPUMHz
	if r.NodeMHz > maxShares {
		shares = int64(math.Round(float64(r.CPUMHz) / float64(r.NodeMHz) * maxShares))
	}
	limited := uint64(min(max(shares, minShares), maxShares))
	limits := &specs.LinuxCPU{Shares: &limited, Cpus: r.Cpus}
	if r.CPUQuota > 0 {
		// The kernel takes no quota below a millisecond.
		quota, period := max(r.CPUQuota, 1000), uint64(r.CPUPeriod)
		limits.Quota, limits.Period = &quota, &period
	}
	return limits
}

const mebibyte = 1 << 20

// memory sets the hard limit, and no swap beyond it unless the task asks for some. Below a higher limit the reservation says to
// whom the kernel turns first when memory runs short.
func memory(r Resources, host Host) (*specs.LinuxMemory, error) {
	limit := r.MemoryMB * mebibyte
	if r.MemoryMaxMB != 0 {
		limit = r.MemoryMaxMB * mebibyte
	}
	m := &specs.LinuxMemory{}
	if reservation := r.MemoryMB * mebibyte; reservation > 0 && r.MemoryMaxMB != 0 {
		m.Reservation = &reservation
	}
	if r.Swappiness != nil {
		if host.CgroupVersion == 2 {
			return nil, errors.New("memory_swappiness: cgroup version 2, which this node has, does not know it")
		}
		swappiness := uint64(*r.Swappiness)
		m.Swappiness = &swappiness
	}
	swap, err := swapLimit(r.Swap, limit, host)
	if err != nil {
		return nil, err
	}
	if limit > 0 {
		m.Limit = &limit
	}
	m.Swap = swap
	return m, nil
}

// swapLimit is memory and swap together, nil where nothing limits them.
func swapLimit(asked, limit int64, host Host) (*int64, error) {
	accounted := host.SwapAccounting || host.CgroupVersion == 2
	switch {
	case asked != 0 && !accounted:
		return nil, errors.New("memory_swap: this node's kernel cannot limit swap")
	case asked > 0 && limit <= 0:
		return nil, errors.New("memory_swap: the task's memory has no limit, so swap cannot have one")
	case asked > 0 && asked < limit:
		return nil, fmt.Errorf("memory_swap %d: is memory and swap together, and so at least the memory limit of %d bytes", asked, limit)
	case asked != 0:
		return &asked, nil
	case limit > 0 && accounted:
		return &limit, nil
	}
	return nil, nil
}

// deviceRules deny everything first. What a container always needs (null, zero, urandom, terminals) the runtime itself
// allows.
func deviceRules(task Task) []specs.LinuxDeviceCgroup {
	if task.Privileged {
		return []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	}
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, d := range task.Devices {
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

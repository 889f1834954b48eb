package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// DefaultCapabilities are those of Nomad's docker driver: docker's own without NET_RAW, with which a container could forge
// packages on the node's network.
func DefaultCapabilities() []string {
	return []string{
		"audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "mknod",
		"net_bind_service", "setfcap", "setgid", "setpcap", "setuid", "sys_chroot",
	}
}

// allCapabilities stands for all of those that are to be had.
const allCapabilities = "all"

// capabilityName is the kernel's name of a capability in any spelling: "net_raw", "NET_RAW" and "CAP_NET_RAW".
func capabilityName(name string) string {
	return "CAP_" + strings.TrimPrefix(strings.ToUpper(name), "CAP_")
}

// IsCapability says whether the kernel has a capability of that name, or whether it is "all".
func IsCapability(name string) bool {
	return strings.EqualFold(name, allCapabilities) || slices.Contains(cap.Known(), capabilityName(name))
}

// Capabilities are those of a task that adds to and drops from the default ones, out of those that are allowed. The
// error names all that are not.
func Capabilities(allowed, add, drop []string) ([]string, error) {
	permitted, all := capabilitySet(allowed)
	if all {
		permitted = capabilitiesOf(cap.Known())
	}
	added, addAll := capabilitySet(add)
	if addAll {
		added = permitted
	}
	if refused := missing(added, permitted); len(refused) > 0 {
		return nil, fmt.Errorf("cap_add %s: not in the plugin's allow_caps on this node", strings.Join(refused, ", "))
	}
	dropped, dropAll := capabilitySet(drop)
	result := map[string]bool{}
	for _, name := range DefaultCapabilities() {
		if name = capabilityName(name); permitted[name] && !dropped[name] && !dropAll {
			result[name] = true
		}
	}
	for name := range added {
		if !dropped[name] {
			result[name] = true
		}
	}
	return sorted(result), nil
}

func capabilitySet(names []string) (set map[string]bool, all bool) {
	if slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, allCapabilities) }) {
		return nil, true
	}
	return capabilitiesOf(names), false
}

func capabilitiesOf(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[capabilityName(name)] = true
	}
	return set
}

// missing are the names in short that are in a and not in b.
func missing(a, b map[string]bool) []string {
	var list []string
	for _, name := range sorted(a) {
		if !b[name] {
			list = append(list, strings.ToLower(strings.TrimPrefix(name, "CAP_")))
		}
	}
	return list
}

func sorted(set map[string]bool) []string {
	list := make([]string, 0, len(set))
	for name := range set {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// capabilities of a process of user. Who is not root has none in effect, as after an execve; the bounding set is the
// same for all.
func capabilities(user User, list []string) *specs.LinuxCapabilities {
	if user.UID != 0 {
		return &specs.LinuxCapabilities{Bounding: list}
	}
	return &specs.LinuxCapabilities{Bounding: list, Effective: list, Permitted: list}
}

// maskedPaths and readonlyPaths are docker's.
func maskedPaths(task Task) []string {
	if task.Privileged {
		return nil
	}
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
		"/sys/devices/virtual/powercap",
	}
}

func readonlyPaths(task Task) []string {
	if task.Privileged {
		return nil
	}
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// checkSysctls refuses parameters that are the whole node's, or those of a namespace that the task shares with it.
func checkSysctls(task Task) error {
	for name := range task.Sysctl {
		switch {
		case strings.HasPrefix(name, "net."):
			if task.Network.Host {
				return fmt.Errorf("sysctl %q: the task shares the node's network, whose parameter this is", name)
			}
		case isIPCSysctl(name):
			if task.Host.IPC {
				return fmt.Errorf("sysctl %q: the task shares the node's ipc namespace, whose parameter this is", name)
			}
		default:
			return fmt.Errorf("sysctl %q: it is a parameter of the whole node, not of a container", name)
		}
	}
	return nil
}

func isIPCSysctl(name string) bool {
	switch name {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
		"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced":
		return true
	}
	return strings.HasPrefix(name, "fs.mqueue.")
}

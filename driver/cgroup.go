package driver

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nomad-promptflow/nomad-promptflow/driver/spec"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// cgroupRoot is where the kernel's cgroup hierarchies are mounted.
const cgroupRoot = "/sys/fs/cgroup"

// cgroups is the node's cgroup file system.
type cgroups struct {
	root    string
	version int
}

// hostCgroups looks at the node. Version 2 alone counts as 2: where both are mounted the controllers are in version 1.
func hostCgroups() cgroups {
	var stat unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &stat); err == nil && stat.Type == unix.CGROUP2_SUPER_MAGIC {
		return cgroups{root: cgroupRoot, version: 2}
	}
	return cgroups{root: cgroupRoot, version: 1}
}

func (c cgroups) host() spec.Host {
	host := spec.Host{CgroupVersion: c.version}
	_, err := os.Stat(filepath.Join(c.root, "memory", "memory.memsw.limit_in_bytes"))
	host.SwapAccounting = c.version == 2 || err == nil
	return host
}

// cgroupPlace is where a container's processes are counted.
type cgroupPlace struct {
	// Path is absolute and relative to the root of each hierarchy.
	Path string
	// Cpuset is the folder of a cpuset of the agent's that the process has to join, empty for none.
	Cpuset string
	// Cores is the list of cores that Cpuset is to have, empty when it is not the task's own.
	Cores string
	// Cpus is the list of cores to set on the container's own cgroup, empty for none.
	Cpus string
}

// sharedCpusets are what agents call the cpuset of all tasks without cores of their own, the last one up to 1.6.
var sharedCpusets = []string{"share", "shared"}

// place puts a task where the agent expects it, so that the agent's cpusets hold for it and the agent can kill it as a last
// resort.
//
// With version 2 that is the cgroup the agent names. With version 1 the agent names a cpuset only: the one that all tasks
// without cores of their own share, or one of this task. The other controllers it expects in "<parent>/<alloc>.<task>"; a
// cpuset of the container's own below the shared one would keep the agent from ever making that smaller, so the
// process joins the agent's instead.
func (c cgroups) place(config *plugin.TaskConfig, id string) cgroupPlace {
	own := cgroupPlace{Path: ownCgroup(id)}
	linux := config.Resources.Linux
	if linux == nil {
		return own
	}
	own.Cpus = linux.CpusetCPUs
	if c.version == 2 {
		if given, ok := strings.CutPrefix(path.Clean(linux.CgroupPath), c.root+"/"); ok {
			own.Path = "/" + given
		}
		return own
	}
	given, ok := strings.CutPrefix(path.Clean(linux.CgroupPath), c.root+"/cpuset/")
	if !ok {
		return own
	}
	parent := path.Dir(given)
	if !slices.Contains(sharedCpusets, path.Base(given)) {
		parent = path.Dir(parent)
	}
	return cgroupPlace{
		Path:   path.Join("/", parent, config.AllocID+"."+config.Name),
		Cpuset: linux.CgroupPath,
		Cores:  linux.CpusetCPUs,
	}
}

// join moves a process that does not run yet into the agent's cpuset.
func (p cgroupPlace) join(pid int) error {
	if p.Cpuset == "" {
		return nil
	}
	if p.Cores != "" {
		if err := p.fill(); err != nil {
			return err
		}
	}
	procs := filepath.Join(p.Cpuset, "cgroup.procs")
	if err := os.WriteFile(procs, []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return fmt.Errorf("join cpuset %s: %w", p.Cpuset, err)
	}
	return nil
}

// fill gives a cpuset of the task's own its cores: the agent makes it, but leaves it empty, and no process can join it so. Agents that fill
// it do so in their own time.
func (p cgroupPlace) fill() error {
	memory := filepath.Join(p.Cpuset, "cpuset.mems")
	nodes, err := os.ReadFile(memory)
	if err != nil {
		return fmt.Errorf("read memory nodes of cpuset: %w", err)
	}
	if len(bytes.TrimSpace(nodes)) == 0 {
		if nodes, err = os.ReadFile(filepath.Join(filepath.Dir(p.Cpuset), "cpuset.mems")); err != nil {
			return fmt.Errorf("read memory nodes of reserved cpusets: %w", err)
		}
		if err := os.WriteFile(memory, nodes, 0o644); err != nil {
			return fmt.Errorf("set memory nodes of cpuset: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(p.Cpuset, "cpuset.cpus"), []byte(p.Cores), 0o644); err != nil {
		return fmt.Errorf("set cores %s of cpuset: %w", p.Cores, err)
	}
	return nil
}

// oomKills counts the processes of a cgroup that the kernel killed because they were over the memory limit. The cgroup stays
// until the container is removed, so this can be asked after the exit.
func (c cgroups) oomKills(cgroupsPath string) (int, error) {
	file := filepath.Join(c.root, "memory", cgroupsPath, "memory.oom_control")
	if c.version == 2 {
		file = filepath.Join(c.root, cgroupsPath, "memory.events")
	}
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read memory events: %w", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if count, ok := strings.CutPrefix(lines.Text(), "oom_kill "); ok {
			return strconv.Atoi(count)
		}
	}
	return 0, nil
}

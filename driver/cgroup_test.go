package driver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

func TestOOMKills(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		version    int
		file, text string
	}{
		{1, "memory/pf/x/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"},
		{2, "pf/x/memory.events", "low 0\nhigh 0\nmax 12\noom 4\noom_kill 3\noom_group_kill 0\n"},
	} {
		groups := cgroups{root: t.TempDir(), version: c.version}
		kills, err := groups.oomKills("/pf/x")
		must.NoError(t, err)
		test.Eq(t, 0, kills, test.Sprint("no cgroup any more"))
		path := filepath.Join(groups.root, c.file)
		must.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must.NoError(t, os.WriteFile(path, []byte(c.text), 0o644))
		kills, err = groups.oomKills("/pf/x")
		must.NoError(t, err)
		test.Eq(t, 3, kills)
	}
}

func TestPlace_namesTheCpusetOfTheAgent(t *testing.T) {
	t.Parallel()
	groups := cgroups{root: "/sys/fs/cgroup", version: 1}
	for _, c := range []struct {
		given, cores, path string
	}{
		{"/sys/fs/cgroup/cpuset/nomad/share", "", "/nomad/alloc.web"},
		{"/sys/fs/cgroup/cpuset/nomad/shared", "", "/nomad/alloc.web"},
		{"/sys/fs/cgroup/cpuset/nomad/reserve/alloc.web", "1", "/nomad/alloc.web"},
		{"/sys/fs/cgroup/cpuset/nomad/reserved/alloc-web", "1", "/nomad/alloc.web"},
	} {
		place := groups.place(&plugin.TaskConfig{AllocID: "alloc", Name: "web", Resources: plugin.Resources{
			Linux: &plugin.LinuxResources{CgroupPath: c.given, CpusetCPUs: c.cores},
		}}, "id")
		test.Eq(t, cgroupPlace{Path: c.path, Cpuset: c.given, Cores: c.cores}, place)
	}
}

func TestJoin_fillsTheTasksOwnCpuset(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cores, memory                string
		wantCores, wantMemory, found string
	}{
		{cores: "1", memory: "", wantCores: "1", wantMemory: "0-3"},
		{cores: "0,2", memory: "2", wantCores: "0,2", wantMemory: "2"},
		{cores: "", memory: "0", found: "0-7", wantCores: "0-7", wantMemory: "0"},
	} {
		parent := t.TempDir()
		own := filepath.Join(parent, "alloc.web")
		must.NoError(t, os.Mkdir(own, 0o755))
		write := func(name, content string) { must.NoError(t, os.WriteFile(name, []byte(content), 0o644)) }
		read := func(name string) string {
			content, err := os.ReadFile(filepath.Join(own, name))
			must.NoError(t, err)
			return strings.TrimSpace(string(content))
		}
		write(filepath.Join(parent, "cpuset.mems"), "0-3\n")
		write(filepath.Join(own, "cpuset.mems"), c.memory+"\n")
		write(filepath.Join(own, "cpuset.cpus"), c.found+"\n")
		must.NoError(t, cgroupPlace{Cpuset: own, Cores: c.cores}.join(42))
		test.Eq(t, "42", read("cgroup.procs"))
		test.Eq(t, c.wantCores, read("cpuset.cpus"))
		test.Eq(t, c.wantMemory, read("cpuset.mems"))
	}
}

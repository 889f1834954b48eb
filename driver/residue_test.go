package driver

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func TestResidueOf_believesALabelOnlyInWhatIsTheContainers(t *testing.T) {
	t.Parallel()
	own := ownCgroup("pf-1")
	for _, c := range []struct {
		name  string
		state taskState
		want  residue
	}{
		{"own", taskState{ContainerID: "pf-1", FilesDir: "/a/web/.promptflow/pf-1", CgroupsPath: own}, residue{"/a/web/.promptflow/pf-1", own}},
		{"the agent's cgroup", taskState{ContainerID: "pf-1", CgroupsPath: "/nomad/alloc-1.web"}, residue{cgroup: "/nomad/alloc-1.web"}},
		{"another container's state", taskState{ContainerID: "pf-2", FilesDir: "/a/web/.promptflow/pf-1"}, residue{cgroup: own}},
		{"another folder", taskState{ContainerID: "pf-1", FilesDir: "/etc"}, residue{cgroup: own}},
		{"another cgroup", taskState{ContainerID: "pf-1", CgroupsPath: "/system.slice"}, residue{cgroup: own}},
	} {
		encoded, err := c.state.encode()
		must.NoError(t, err)
		test.Eq(t, c.want, residueOf("pf-1", map[string]string{
			labelAllocID: "alloc-1", labelState: base64.StdEncoding.EncodeToString(encoded),
		}), test.Sprint(c.name))
	}
	test.Eq(t, residue{cgroup: own}, residueOf("pf-1", nil))
}

func TestCgroups_remove(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		version int
		path    string
		dirs    map[string]bool // which are gone then
	}{
		{"version 1", 1, "/nomad/alloc.*", map[string]bool{
			"cpu/nomad/alloc.*": true, "memory/nomad/alloc.*/inner": true, "memory/nomad/alloc.web": false, "cpuset/nomad/share": false,
		}},
		{"version 2, own", 2, ownCgroup("pf-1"), map[string]bool{"nomad-promptflow/pf-1/inner": true, "nomad-promptflow/pf-2": false}},
		{"version 2, the agent's", 2, "/nomad.slice/alloc.web.scope", map[string]bool{"nomad.slice/alloc.web.scope": false}},
		{"none", 1, "/", map[string]bool{"cpu": false}},
		{"above", 1, "/..", map[string]bool{"cpu": false}},
	} {
		groups := cgroups{root: t.TempDir(), version: c.version}
		for dir := range c.dirs {
			must.NoError(t, os.MkdirAll(filepath.Join(groups.root, dir), 0o755))
		}
		must.NoError(t, groups.remove(t.Context(), c.path), must.Sprint(c.name))
		for dir, gone := range c.dirs {
			_, err := os.Stat(filepath.Join(groups.root, dir))
			test.Eq(t, gone, os.IsNotExist(err), test.Sprint(c.name, ": ", dir))
		}
	}
}

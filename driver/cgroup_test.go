package driver

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
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

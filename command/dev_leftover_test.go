package command

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func TestSweep_endsWhatNamesTheFolderAndItsChildren(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// The shell names the folder, as a shim does; its child does not, as a container. It may end by itself once the child is killed.
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "sleep 300 & wait; exit 1", filepath.Join(dir, "containerd.sock"))
	must.NoError(t, cmd.Start())
	var pids []int
	deadline := time.Now().Add(20 * time.Second)
	for len(pids) < 2 {
		must.True(t, time.Now().Before(deadline), must.Sprintf("found %v", pids))
		pids = processesOf(dir)
	}
	test.Eq(t, cmd.Process.Pid, pids[1], test.Sprint("a process comes after its children"))
	must.NoError(t, endAll(pids))
	must.Error(t, cmd.Wait())
	test.SliceEmpty(t, processesOf(dir))
	test.True(t, ended(pids[0]))
}

func TestSweep_ofAFolderThatIsNotDevs(t *testing.T) {
	t.Parallel()
	d := &devCluster{options: devOptions{dataDir: t.TempDir()}, progress: newProgress(os.Stderr)}
	must.NoError(t, d.sweep(), must.Sprint("nothing was left"))
	must.NoError(t, os.WriteFile(filepath.Join(d.options.dataDir, runRecord), []byte("/etc"), 0o600))
	test.ErrorContains(t, d.sweep(), `"/etc", which is no run folder of dev`)
}

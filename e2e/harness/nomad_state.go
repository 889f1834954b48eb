package harness

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// LoseClientState kills the client, takes away what it has of its tasks, and starts it again as the same node. It knows of no
// container and no plugin then.
func (n *Nomad) LoseClientState(t testing.TB) {
	t.Helper()
	// Its plugin and log collectors live on with nobody to end them.
	left := children(n.client.cmd.Process.Pid)
	t.Cleanup(func() {
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	must(t, n.client.cmd.Process.Kill())
	_ = n.client.cmd.Wait()
	data := filepath.Join(filepath.Dir(n.PluginDir), "client")
	must(t, os.Remove(filepath.Join(data, "client", "state.db")))
	removeAll(t, filepath.Join(data, "alloc"))
	n.client.start(t)
	n.awaitReady(t)
}

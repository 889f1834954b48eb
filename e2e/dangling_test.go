package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
)

// sleepyJob is a service that does nothing.
func sleepyJob(t *testing.T, name string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+".nomad.hcl")
	must.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `
job %q {
  group "group" {
    task "sleepy" {
      driver = "promptflow"
      config {
        args = ["echo started; exec sleep 100000"]
      }
      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
`, name), 0o600))
	return file
}

// containers are the names of what containerd has for the driver.
func containers(t *testing.T, daemon *harness.ContainerdDaemon) map[string]bool {
	t.Helper()
	list, err := daemon.Client("nomad").Containers(namespaces.WithNamespace(t.Context(), "nomad"))
	must.NoError(t, err)
	names := map[string]bool{}
	for _, container := range list {
		names[container.ID()] = true
	}
	return names
}

// The agent is killed and loses what it knew of its tasks. Plugin and container live on, and nobody knows them. The container is
// removed once the node has something else to do; what it does then is left alone.
func TestNomad_agentThatLostItsTasksLeavesNoContainer(t *testing.T) {
	bin := harness.NomadBinary()
	if bin == "" {
		t.Skip("no nomad binary: put one on PATH or name it with NOMAD_BIN")
	}
	daemon := harness.Containerd(t)
	layout := harness.BusyboxLayout(t, harness.BusyboxImage{Tag: "default:latest", Config: ocispec.ImageConfig{Entrypoint: []string{"/bin/sh", "-c"}}})
	n := harness.StartNomad(t, bin, harness.Binary(t), fmt.Sprintf(`
environments = %q
containerd {
  address = %q
}
gc {
  dangling_containers {
    period         = "2s"
    creation_grace = "5s"
  }
}`, layout, daemon.Address))
	harness.Eventually(t, 60*time.Second, "driver healthy on the node", func() error { return driverHealth(n) })
	run := func(name string) string {
		out, err := n.Run(t, "job", "run", sleepyJob(t, name))
		must.NoError(t, err, must.Sprint(out))
		alloc, err := runningAlloc(n, name)
		must.NoError(t, err)
		return alloc
	}
	run("lost")
	lost := containers(t, daemon)
	must.MapLen(t, 1, lost)
	n.LoseClientState(t)
	out, err := n.Run(t, "job", "stop", "-detach", "-purge", "lost")
	must.NoError(t, err, must.Sprint(out))
	must.Eq(t, lost, containers(t, daemon), must.Sprint("the agent cannot stop what it does not know"))

	alloc := run("kept")
	harness.Eventually(t, 60*time.Second, "the lost container is removed", func() error {
		if now := containers(t, daemon); len(now) != 1 || lost[first(now)] {
			return fmt.Errorf("containers: %v", now)
		}
		return nil
	})
	// An agent that is killed and remembers takes its task back.
	kept := containers(t, daemon)
	n.RestartClient(t, true)
	harness.Eventually(t, 60*time.Second, "the task is the agent's again", func() error {
		_, err := n.Run(t, "alloc", "exec", alloc, "true")
		return err
	})
	test.Eq(t, kept, containers(t, daemon))
	out, err = n.Run(t, "job", "stop", "-purge", "kept")
	must.NoError(t, err, must.Sprint(out))
	harness.Eventually(t, 60*time.Second, "nothing is left", func() error {
		if now := containers(t, daemon); len(now) > 0 {
			return fmt.Errorf("containers: %v", now)
		}
		return nil
	})
	must.SliceEmpty(t, daemon.Shims())
}

func first(names map[string]bool) string {
	for name := range names {
		return name
	}
	return ""
}

package e2e

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
)

// TestNomad_outages takes parts of a node away, one after the other, while a task runs.
func TestNomad_outages(t *testing.T) {
	c := startCluster(t)
	for _, scenario := range []struct {
		name string
		job  string
		take func(*testing.T, *cluster)
	}{
		{"agent restarted", "agent-restarted", func(t *testing.T, c *cluster) { c.RestartClient(t, false) }},
		{"agent killed", "agent-killed", func(t *testing.T, c *cluster) { c.RestartClient(t, true) }},
		{"plugin killed", "plugin-killed", killPlugin},
		{"containerd killed", "containerd-killed", killContainerd},
		{"plugin upgraded", "plugin-upgraded", upgradePlugin},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			outlives(t, c, scenario.job, scenario.take)
		})
	}
	t.Run("task ends while the agent is away", func(t *testing.T) { endsUnseenScenario(t, c) })
	t.Run("agent restarted beside a bridge network", func(t *testing.T) { bridgeOutlivesScenario(t, c) })
	t.Run("node rebooted", func(t *testing.T) { rebootScenario(t, c) })
	t.Run("node drained", func(t *testing.T) { drainScenario(t, c) })
}

// outlives checks that a task goes on through an outage in the same process, that its output still arrives and commands still reach
// it, and that its exit code is learned.
func outlives(t *testing.T, c *cluster, job string, outage func(*testing.T, *cluster)) {
	alloc := c.startPatient(t, job)
	process := c.process(t, alloc)
	outage(t, c)
	c.awaitDriver(t, patience)
	harness.Eventually(t, soon, "the agent having the task back", func() error {
		if result := c.exec(t, alloc, "main", "/bin/true"); result.code != 0 {
			return fmt.Errorf("exec: %+v", result)
		}
		return nil
	})
	c.tell(t, alloc, "say", "hello-again")
	c.awaitLog(t, alloc, "stdout", "says hello-again")
	c.must(t, "alloc", "signal", "-s", "SIGHUP", "-task", "main", alloc)
	c.awaitLog(t, alloc, "stdout", "got HUP")
	test.Eq(t, process, c.process(t, alloc))
	c.tell(t, alloc, "end", "9")
	details := c.awaitExit(t, job, "failed")
	test.Eq(t, "9", details["exit_code"])
	after, err := c.allocation(alloc)
	must.NoError(t, err)
	test.Eq(t, 0, after.TaskStates["main"].Restarts, test.Sprint(after.describe()))
}

// killPlugin ends the plugin as a crash would, and waits for the agent to start another one.
func killPlugin(t *testing.T, c *cluster) {
	t.Helper()
	pid, err := pluginPID(c.PluginDir)
	must.NoError(t, err)
	must.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	harness.Eventually(t, patience, "another plugin process", func() error {
		again, err := pluginPID(c.PluginDir)
		if err == nil && again == pid {
			err = errors.New("still the old one")
		}
		return err
	})
}

// noticed is how soon the driver must see that containerd is lost. Agents tell their servers of it some seconds later.
const noticed = 10 * time.Second

// killContainerd ends the daemon as a crash would, and starts it again when the node is seen to be without.
func killContainerd(t *testing.T, c *cluster) {
	t.Helper()
	killed := time.Now()
	c.containerd.Kill()
	defer c.containerd.Start()
	harness.Eventually(t, patience, "driver unhealthy on the node", func() error {
		n, err := nodeOf(c.Nomad)
		if err != nil {
			return err
		}
		lost := n.Drivers["promptflow"]
		if lost.Healthy {
			return errors.New("it is still healthy")
		}
		test.Less(t, noticed, lost.UpdateTime.Sub(killed))
		return nil
	})
}

// upgradePlugin puts another version in the plugin's place, which the agent takes when it is restarted.
func upgradePlugin(t *testing.T, c *cluster) {
	t.Helper()
	const next = "9.8.7"
	c.InstallPlugin(t, harness.BinaryOfVersion(t, next))
	c.RestartClient(t, false)
	harness.Eventually(t, patience, "the node having the plugin's new version", func() error {
		n, err := nodeOf(c.Nomad)
		if err == nil && n.Attributes["driver.promptflow.version"] != next {
			err = fmt.Errorf("it has %q", n.Attributes["driver.promptflow.version"])
		}
		return err
	})
}

func endsUnseenScenario(t *testing.T, c *cluster) {
	alloc := c.startPatient(t, "unseen")
	process := c.process(t, alloc)
	c.StopClient(t, false)
	c.tell(t, alloc, "end", "11")
	harness.Eventually(t, soon, "the end of the task's process", func() error {
		if err := syscall.Kill(int(process), 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal process %d: %w", process, err)
		}
		return nil
	})
	c.StartClient(t)
	details := c.awaitExit(t, "unseen", "failed")
	test.Eq(t, "11", details["exit_code"])
}

func bridgeOutlivesScenario(t *testing.T, c *cluster) {
	needBridge(t)
	c.run(t, "bridge")
	address, err := service(c.Nomad, "bridge")
	must.NoError(t, err)
	for _, hard := range []bool{false, true} {
		c.RestartClient(t, hard)
		c.awaitDriver(t, patience)
		body, err := served(address)
		must.NoError(t, err)
		test.Eq(t, "from within", body)
	}
	alloc := c.await(t, "bridge", "running").ID
	test.Eq(t, execResult{stdout: "from within"}, c.exec(t, alloc, "neighbour", "/bin/wget", "-q", "-O", "-", "http://127.0.0.1:8080/"))
	c.stop(t, "bridge")
}

// rebootScenario takes away all that a reboot does: every process, every mount, and what containerd keeps in memory. The container is
// still in its database.
func rebootScenario(t *testing.T, c *cluster) {
	alloc := c.startPatient(t, "rebooted")
	before := c.process(t, alloc)
	c.CutClient(t)
	c.containerd.Kill()
	must.NoError(t, syscall.Kill(int(before), syscall.SIGKILL))
	for _, shim := range c.containerd.Shims() {
		must.NoError(t, syscall.Kill(shim, syscall.SIGKILL))
	}
	for _, mount := range slices.Backward(c.containerd.Mounts()) {
		must.NoError(t, syscall.Unmount(mount, 0))
	}
	must.NoError(t, os.RemoveAll(c.containerd.State))
	c.containerd.Start()
	c.StartClient(t)

	harness.Eventually(t, patience, "the task started anew in its allocation", func() error {
		out, err := c.logs(t, alloc, "main", "stdout")
		if err == nil && strings.Count(out, "ready") != 2 {
			err = fmt.Errorf("its output is %q", out)
		}
		return err
	})
	test.NotEq(t, before, c.process(t, alloc))
	c.tell(t, alloc, "end", "0")
	c.awaitExit(t, "rebooted", "complete")
}

func drainScenario(t *testing.T, c *cluster) {
	c.run(t, "drain")
	c.await(t, "drain", "running")
	n, err := nodeOf(c.Nomad)
	must.NoError(t, err)
	c.must(t, "node", "drain", "-enable", "-yes", "-detach", "-deadline", "1m", n.ID)
	alloc := c.await(t, "drain", "complete")

	polite, ok := alloc.TaskStates["polite"].event("Terminated")
	must.True(t, ok, must.Sprint(alloc.describe()))
	test.Eq(t, "0", polite.Details["exit_code"])
	said, err := c.logs(t, alloc.ID, "polite", "stdout")
	must.NoError(t, err)
	test.StrContains(t, said, "bye")

	stubborn := alloc.TaskStates["stubborn"]
	killed, ok := stubborn.event("Terminated")
	must.True(t, ok, must.Sprint(alloc.describe()))
	test.Eq(t, "137", killed.Details["exit_code"])
	killing, ok := stubborn.event("Killing")
	must.True(t, ok, must.Sprint(alloc.describe()))
	took := time.Duration(killed.Time - killing.Time)
	test.Between(t, 2*time.Second, took, 6*time.Second, test.Sprint("kill_timeout is two seconds"))

	c.must(t, "node", "drain", "-disable", "-yes", n.ID)
	harness.Eventually(t, patience, "the job placed again", func() error {
		all, err := c.allocations("drain")
		if err != nil {
			return err
		}
		if len(all) != 2 || all[1].ClientStatus != "running" {
			return fmt.Errorf("allocations: %+v", all)
		}
		return nil
	})
	c.stop(t, "drain")
}

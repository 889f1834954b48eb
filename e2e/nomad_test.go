package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/flows"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/jobspecs"
)

// environments builds the base image into a layout of the test's own; its layers come from the cache.
func environments(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "environments")
	out, err := exec.CommandContext(t.Context(), harness.Binary(t), "environment", "build-base", "-environments", dir, "-cache", harness.BaseCache(t)).CombinedOutput()
	must.NoError(t, err, must.Sprint(string(out)))
	return dir
}

// service is where Nomad says that a runtime listens.
func service(n *harness.Nomad, name string) (string, error) {
	var instances []struct {
		Address string
		Port    int
	}
	if err := n.Get("/v1/service/"+name, &instances); err != nil {
		return "", err
	}
	if len(instances) != 1 {
		return "", fmt.Errorf("service %s has %d instances", name, len(instances))
	}
	return fmt.Sprintf("http://%s:%d", instances[0].Address, instances[0].Port), nil
}

// triage runs the example flow on a runtime and returns its metrics.
func triage(t *testing.T, address string) (map[string]float64, error) {
	t.Helper()
	dir := flows.Dir(t, flows.TicketTriage)
	cmd := exec.CommandContext(t.Context(), harness.Binary(t), "run", dir, "-data", filepath.Join(dir, "data.jsonl"), "-direct", "-address", address, "-json")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, stderr.String())
	}
	var result api.RunResult
	if err := json.Unmarshal(out, &result); err != nil {
		return nil, err
	}
	var metrics map[string]float64
	return metrics, json.Unmarshal(result.Metrics, &metrics)
}

// driverHealth is what the agent's node says of the driver.
func driverHealth(n *harness.Nomad) error {
	node, err := nodeOf(n)
	if err != nil {
		return err
	}
	if !node.Drivers["promptflow"].Healthy {
		return fmt.Errorf("driver: %+v", node.Drivers["promptflow"])
	}
	if node.Attributes["driver.promptflow"] != "1" {
		return errors.New("node attribute driver.promptflow is not set")
	}
	return nil
}

// runningAlloc is the id of the job's only running allocation.
func runningAlloc(n *harness.Nomad, job string) (string, error) {
	var allocs []struct{ ID, ClientStatus string }
	if err := n.Get("/v1/job/"+job+"/allocations", &allocs); err != nil {
		return "", err
	}
	for _, a := range allocs {
		if a.ClientStatus == "running" {
			return a.ID, nil
		}
	}
	return "", fmt.Errorf("no allocation of %s is running: %+v", job, allocs)
}

// pluginPID finds the plugin process that the agent started.
func pluginPID(pluginDir string) (int, error) {
	exes, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return 0, err
	}
	for _, exe := range exes {
		if target, err := os.Readlink(exe); err == nil && target == filepath.Join(pluginDir, "nomad-promptflow") {
			return strconv.Atoi(strings.Split(exe, "/")[2])
		}
	}
	return 0, fmt.Errorf("no process runs %s/nomad-promptflow", pluginDir)
}

// startNomad starts a cluster whose node has the driver, or skips the test where there is no nomad binary.
func startNomad(t *testing.T) (*harness.Nomad, *harness.ContainerdDaemon) {
	t.Helper()
	bin := harness.NomadBinary()
	if bin == "" {
		t.Skip("no nomad binary: put one on PATH or name it with NOMAD_BIN; the same path without an agent is walked by TestDev_runs_a_real_flow_as_prompt_flow_itself_does")
	}
	containerd := harness.Containerd(t)
	n := harness.StartNomad(t, bin, harness.Binary(t), fmt.Sprintf("environments = %q\ncontainerd {\n  address = %q\n}\n", environments(t), containerd.Address))
	harness.Eventually(t, 60*time.Second, "driver healthy on the node", func() error { return driverHealth(n) })
	return n, containerd
}

// runShared runs the shared runtime's job until it is healthy, and returns where it listens.
func runShared(t *testing.T, n *harness.Nomad, vars ...string) string {
	t.Helper()
	job := filepath.Join(t.TempDir(), jobspecs.Shared.File())
	must.NoError(t, os.WriteFile(job, []byte(jobspecs.Shared.Source()), 0o600))
	args := []string{"job", "run"}
	for _, v := range append(vars, "name=triage", "service_provider=nomad") {
		args = append(args, "-var", v)
	}
	out, err := n.Run(t, append(args, job)...)
	must.NoError(t, err, must.Sprint(out))
	address, err := service(n, "promptflow-triage")
	must.NoError(t, err)
	return address
}

// upstreamMetrics are what prompt flow's own executor makes of the example.
func upstreamMetrics(t *testing.T) map[string]float64 {
	t.Helper()
	return flows.RunUpstream(t, flows.TicketTriage, filepath.Join(flows.Dir(t, flows.TicketTriage), "data.jsonl"), "{}").Metrics
}

// bridgePlugin is the CNI plugin without which an agent has no bridge networks; the harness tells agents to look there.
const bridgePlugin = "/usr/lib/cni/bridge"

// needBridge skips a test where the agent can make no bridge networks.
func needBridge(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(bridgePlugin); err != nil {
		t.Skipf("no CNI plugins for the agent's bridge: %v (apt-get install containernetworking-plugins)", err)
	}
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skipf("no iptables for the agent's bridge: %v (apt-get install iptables)", err)
	}
}

func TestNomad_runs_a_shared_runtime_in_a_network_of_its_own(t *testing.T) {
	harness.Integration(t)
	if harness.NomadBinary() != "" {
		needBridge(t)
	}
	n, _ := startNomad(t)
	address := runShared(t, n, "network_mode=bridge")
	got, err := triage(t, address)
	must.NoError(t, err)
	test.Eq(t, upstreamMetrics(t), got)
	out, err := n.Run(t, "job", "stop", "-purge", "triage")
	must.NoError(t, err, must.Sprint(out))
}

func TestNomad_runs_a_shared_runtime(t *testing.T) {
	harness.Integration(t)
	n, containerd := startNomad(t)
	want := upstreamMetrics(t)
	address := runShared(t, n)
	client, err := api.NewClient(address, "")
	must.NoError(t, err)
	version, err := client.Version(t.Context())
	must.NoError(t, err)
	test.Eq(t, "default", version.Environment)
	test.StrHasPrefix(t, "sha256:", version.EnvironmentDigest)
	metrics, err := triage(t, address)
	must.NoError(t, err)
	test.Eq(t, want, metrics)
	alloc, err := runningAlloc(n, "triage")
	must.NoError(t, err)

	t.Run("the plugin is killed", func(t *testing.T) {
		pid, err := pluginPID(n.PluginDir)
		must.NoError(t, err)
		must.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		harness.Eventually(t, 60*time.Second, "another plugin process", func() error {
			again, err := pluginPID(n.PluginDir)
			if err == nil && again == pid {
				err = errors.New("still the old one")
			}
			return err
		})
		mustStillRun(t, n, alloc, address, want)
	})
	t.Run("the client agent is killed", func(t *testing.T) {
		n.RestartClient(t, true)
		mustStillRun(t, n, alloc, address, want)
	})
	t.Run("the client agent is restarted", func(t *testing.T) {
		n.RestartClient(t, false)
		mustStillRun(t, n, alloc, address, want)
	})
	t.Run("logs and exec", func(t *testing.T) {
		out, err := n.Run(t, "alloc", "logs", "-stderr", alloc)
		must.NoError(t, err, must.Sprint(out))
		test.StrContains(t, out, "runtime")
		out, err = n.Run(t, "alloc", "exec", "-t=false", "-i=false", alloc, "/usr/local/bin/nomad-promptflow", "version")
		must.NoError(t, err, must.Sprint(out))
		test.StrContains(t, out, "nomad-promptflow v")
	})
	t.Run("the job is stopped", func(t *testing.T) {
		out, err := n.Run(t, "job", "stop", "-purge", "triage")
		must.NoError(t, err, must.Sprint(out))
		harness.Eventually(t, 60*time.Second, "no shim left", func() error {
			if shims := containerd.Shims(); len(shims) > 0 {
				return fmt.Errorf("shims: %v", shims)
			}
			return nil
		})
	})
}

// mustStillRun checks that the same allocation goes on and still answers.
func mustStillRun(t *testing.T, n *harness.Nomad, alloc, address string, want map[string]float64) {
	t.Helper()
	harness.Eventually(t, 60*time.Second, "the same allocation running", func() error {
		now, err := runningAlloc(n, "triage")
		if err == nil && now != alloc {
			err = fmt.Errorf("allocation %s took the place of %s", now, alloc)
		}
		return err
	})
	var got map[string]float64
	harness.Eventually(t, 30*time.Second, "the runtime answering", func() (err error) {
		got, err = triage(t, address)
		return err
	})
	test.Eq(t, want, got)
	harness.Eventually(t, 15*time.Second, "the agent having the task back", func() error {
		out, err := n.Run(t, "alloc", "exec", "-t=false", "-i=false", alloc, "/usr/local/bin/nomad-promptflow", "version")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Nomad is a real Nomad cluster of one server and one client, each an agent of its own, on loopback.
type Nomad struct {
	Address   string // of the client's HTTP API, http://127.0.0.1:port
	PluginDir string
	bin       string
	dir       string
	server    *nomadAgent
	client    *nomadAgent
}

// nomadStop is how long an agent may take to end.
const nomadStop = 20 * time.Second

// nomadAgent is one agent process, which keeps its state over restarts.
type nomadAgent struct {
	bin     string
	configs []string
	log     *os.File
	cmd     *exec.Cmd
}

// NomadBinary returns the nomad binary to test with: NOMAD_BIN, else the one on PATH, else "".
func NomadBinary() string {
	if bin := os.Getenv("NOMAD_BIN"); bin != "" {
		return bin
	}
	bin, err := exec.LookPath("nomad")
	if err != nil {
		return ""
	}
	return bin
}

// StartNomad starts a server and a client that loads the plugin binary with the given body of its config block, and ends them with the
// test. What clientConfig says is merged into the client's own configuration.
func StartNomad(t testing.TB, nomadBin, pluginBinary, pluginConfig string, clientConfig ...string) *Nomad {
	t.Helper()
	dir, err := os.MkdirTemp("", "npf-nomad-") //nolint:usetesting // sockets live below it, and their paths have at most 107 bytes
	must(t, err)
	t.Cleanup(func() { removeAll(t, dir) })

	ports := freePorts(t, 6)
	n := &Nomad{Address: fmt.Sprintf("http://127.0.0.1:%d", ports[3]), PluginDir: filepath.Join(dir, "plugins"), bin: nomadBin, dir: dir}
	t.Cleanup(func() { n.endLeftOver(t) })
	must(t, os.MkdirAll(n.PluginDir, 0o755))
	n.InstallPlugin(t, pluginBinary)
	n.server = newNomadAgent(t, nomadBin, dir, "server", ports[0:3], `
server {
  enabled          = true
  bootstrap_expect = 1
}
`)
	usual := fmt.Sprintf(`
plugin_dir = %q
client {
  enabled           = true
  servers           = ["127.0.0.1:%d"]
  network_interface = "lo"
  cni_path          = "/usr/lib/cni"
  options = {
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }
}
plugin "nomad-promptflow" {
  config {
%s
  }
}
`, n.PluginDir, ports[1], pluginConfig)
	n.client = newNomadAgent(t, nomadBin, dir, "client", ports[3:6], append([]string{usual}, clientConfig...)...)
	n.server.start(t)
	// A client that finds no leader tries again only after fifteen seconds or more.
	Eventually(t, 30*time.Second, "nomad server with a leader", func() error {
		var leader string
		if err := getJSON(fmt.Sprintf("http://127.0.0.1:%d/v1/status/leader", ports[0]), &leader); err != nil {
			return err
		}
		if leader == "" {
			return errors.New("no leader")
		}
		return nil
	})
	n.client.start(t)
	n.awaitReady(t)
	t.Cleanup(func() { n.stopJobs(t) })
	return n
}

func newNomadAgent(t testing.TB, bin, dir, name string, ports []int, configs ...string) *nomadAgent {
	t.Helper()
	own := fmt.Sprintf(`
name      = %q
data_dir  = %q
bind_addr = "127.0.0.1"
log_level = "DEBUG"
advertise {
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}
ports {
  http = %d
  rpc  = %d
  serf = %d
}
`, name, filepath.Join(dir, name), ports[0], ports[1], ports[2])
	a := &nomadAgent{bin: bin}
	for i, config := range append([]string{own}, configs...) {
		file := filepath.Join(dir, fmt.Sprintf("%s-%d.hcl", name, i))
		must(t, os.WriteFile(file, []byte(config), 0o600))
		a.configs = append(a.configs, file)
	}
	var err error
	a.log, err = os.Create(filepath.Join(dir, name+".log"))
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("last lines of the nomad %s's log:\n%s", name, a.lastLog(t, 200))
		}
		a.stop()
	})
	return a
}

func (a *nomadAgent) start(t testing.TB) {
	t.Helper()
	args := []string{"agent"}
	for _, config := range a.configs {
		args = append(args, "-config", config)
	}
	a.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), a.bin, args...)
	for _, kv := range os.Environ() {
		// With these set the AWS fingerprinter stops the agent.
		if !strings.HasPrefix(kv, "AWS_CA_BUNDLE=") && !strings.HasPrefix(kv, "SSL_CERT_FILE=") {
			a.cmd.Env = append(a.cmd.Env, kv)
		}
	}
	a.cmd.Stdout, a.cmd.Stderr = a.log, a.log
	must(t, a.cmd.Start())
}

func (a *nomadAgent) stop() {
	if a.cmd == nil {
		return
	}
	endProcess(a.cmd, nomadStop)
	a.cmd = nil
}

// awaitReady waits until the cluster has its node.
func (n *Nomad) awaitReady(t testing.TB) {
	t.Helper()
	Eventually(t, 90*time.Second, "nomad client ready", func() error {
		var nodes []struct{ Status string }
		if err := n.Get("/v1/nodes", &nodes); err != nil {
			return err
		}
		if len(nodes) != 1 || nodes[0].Status != "ready" {
			return fmt.Errorf("nodes: %+v", nodes)
		}
		return nil
	})
}

// jobsStop is how long all jobs may take to end with their networks.
const jobsStop = time.Minute

// stopJobs stops what the test left running. A client that ended before them would leave log collectors, network namespaces and firewall
// rules on the node, where a later test meets them.
func (n *Nomad) stopJobs(t testing.TB) {
	var jobs []struct{ ID string }
	if err := n.Get("/v1/jobs", &jobs); err != nil {
		t.Errorf("harness: list jobs to stop: %v", err)
		return
	}
	for _, job := range jobs {
		if err := deleteURL(n.Address + "/v1/job/" + job.ID); err != nil {
			t.Errorf("harness: stop job %s: %v", job.ID, err)
		}
	}
	Eventually(t, jobsStop, "everything of the cluster's jobs removed", func() error {
		var allocs []struct{ ID, JobID, ClientStatus string }
		if err := n.Get("/v1/allocations", &allocs); err != nil {
			return err
		}
		for _, alloc := range allocs {
			if alloc.ClientStatus == "running" || alloc.ClientStatus == "pending" {
				return fmt.Errorf("allocation %s of %s is %s", alloc.ID, alloc.JobID, alloc.ClientStatus)
			}
		}
		// A task is called dead before all of it is gone. The last to go is the allocation's folder, when it is asked for.
		if err := request(http.MethodGet, n.Address+"/v1/client/gc", func(io.Reader) error { return nil }); err != nil {
			return err
		}
		left, err := filepath.Glob(filepath.Join(n.dir, "client", "alloc", "*"))
		for _, alloc := range allocs {
			left = append(left, cgroupsOf(t, alloc.ID)...)
		}
		if len(left) > 0 {
			return fmt.Errorf("folders: %v", left)
		}
		return err
	})
}

// cgroupsOf are the cgroups of an allocation's tasks, where agents expect them with either version.
func cgroupsOf(t testing.TB, alloc string) []string {
	t.Helper()
	var found []string
	for _, where := range []string{"nomad.slice/*/", "*/nomad/", "*/nomad/*/"} {
		groups, err := filepath.Glob("/sys/fs/cgroup/" + where + alloc + "*")
		must(t, err)
		found = append(found, groups...)
	}
	return found
}

// endLeftOver ends what an agent that crashed left running: plugins and log collectors, which wait for it to come back.
func (n *Nomad) endLeftOver(t testing.TB) {
	bin, err := filepath.EvalSymlinks(n.bin)
	must(t, err)
	processes, err := filepath.Glob("/proc/[0-9]*")
	must(t, err)
	for _, process := range processes {
		exe, err := os.Readlink(process + "/exe")
		if err != nil || !strings.HasPrefix(exe, n.PluginDir+"/") && (exe != bin || !hasOpen(process, filepath.Join(n.dir, "client", "alloc"))) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(process))
		must(t, err)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// hasOpen says whether a process has a file beneath dir open.
func hasOpen(process, dir string) bool {
	files, err := filepath.Glob(process + "/fd/*")
	return err == nil && slices.ContainsFunc(files, func(file string) bool {
		target, err := os.Readlink(file)
		return err == nil && strings.HasPrefix(target, dir+"/")
	})
}

// RestartClient stops the client (SIGTERM, or SIGKILL when hard) and starts it again on the same state. The server goes on, as servers
// do on other machines.
func (n *Nomad) RestartClient(t testing.TB, hard bool) {
	t.Helper()
	n.StopClient(t, hard)
	n.StartClient(t)
}

// StopClient ends the client with SIGTERM, or with SIGKILL when hard. Its tasks run on.
func (n *Nomad) StopClient(t testing.TB, hard bool) {
	t.Helper()
	if !hard {
		n.client.stop()
		return
	}
	must(t, n.client.cmd.Process.Kill())
	_ = n.client.cmd.Wait()
}

// CutClient ends the client with its plugin and its log collectors, as the loss of the machine would.
func (n *Nomad) CutClient(t testing.TB) {
	t.Helper()
	n.StopClient(t, true)
	n.endLeftOver(t)
}

// StartClient starts the client again after StopClient, on the same state.
func (n *Nomad) StartClient(t testing.TB) {
	t.Helper()
	n.client.start(t)
	n.awaitReady(t)
}

// InstallPlugin puts a plugin binary in the place of the one there. The client takes it when it starts the plugin the next time.
func (n *Nomad) InstallPlugin(t testing.TB, binary string) {
	t.Helper()
	// A copy, not a link: an agent reads the plugin's name from the file's. It is put in place by renaming, because a program that runs
	// cannot be written to.
	content, err := os.ReadFile(binary)
	must(t, err)
	fresh := filepath.Join(n.dir, "plugin.new")
	must(t, os.WriteFile(fresh, content, 0o755))
	must(t, os.Rename(fresh, filepath.Join(n.PluginDir, "nomad-promptflow")))
}

// TaskDir is a task's folder on the node.
func (n *Nomad) TaskDir(alloc, task string) string {
	return filepath.Join(n.dir, "client", "alloc", alloc, task)
}

// Get decodes the answer of an API call.
func (n *Nomad) Get(path string, into any) error {
	return getJSON(n.Address+path, into)
}

// nomadCommandLimit bounds a command of the CLI, some of which wait for an end that may never come.
const nomadCommandLimit = 3 * time.Minute

// Command is a command of the nomad CLI against the agent.
func (n *Nomad) Command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), nomadCommandLimit)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, n.bin, args...)
	cmd.Env = append(os.Environ(), "NOMAD_ADDR="+n.Address)
	return cmd
}

// Run runs the nomad CLI against the agent and returns what it printed.
func (n *Nomad) Run(t testing.TB, args ...string) (string, error) {
	t.Helper()
	out, err := n.Command(t, args...).CombinedOutput()
	return string(out), err
}

// lastLog returns the last lines of the agent's log, without those of requests, which are mostly the test's own.
func (a *nomadAgent) lastLog(t testing.TB, lines int) string {
	t.Helper()
	data, err := os.ReadFile(a.log.Name())
	must(t, err)
	all := slices.DeleteFunc(bytes.Split(data, []byte("\n")), func(line []byte) bool {
		return bytes.Contains(line, []byte("http: request complete"))
	})
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// endProcess asks a process to end, and kills it when it has not after the given time.
func endProcess(cmd *exec.Cmd, limit time.Duration) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	_ = cmd.Wait() // it says how the signal ended it
}

// Eventually calls check until it returns nil, and fails the test with its last error when that takes longer than limit.
func Eventually(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("harness: %s: not within %s: %v", what, limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// freePorts returns n loopback ports that nobody listened on a moment ago.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		var lc net.ListenConfig
		l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
		must(t, err)
		defer func() { _ = l.Close() }()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

// removeAll unmounts what an agent left mounted under dir (task secrets), then removes it.
func removeAll(t testing.TB, dir string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for _, line := range strings.Split(string(mounts), "\n") {
		fields := strings.Fields(line)
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			_ = syscall.Unmount(fields[4], syscall.MNT_DETACH)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Errorf("harness: remove %s: %v", dir, err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("harness: %v", err)
	}
}

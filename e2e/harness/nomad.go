package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	server    *nomadAgent
	client    *nomadAgent
}

// nomadAgent is one agent process, which keeps its state over restarts.
type nomadAgent struct {
	bin, config string
	log         *os.File
	cmd         *exec.Cmd
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
// test.
func StartNomad(t testing.TB, nomadBin, pluginBinary, pluginConfig string) *Nomad {
	t.Helper()
	dir, err := os.MkdirTemp("", "npf-nomad-") //nolint:usetesting // sockets live below it, and their paths have at most 107 bytes
	must(t, err)
	t.Cleanup(func() { removeAll(t, dir) })

	plugins := filepath.Join(dir, "plugins")
	must(t, os.MkdirAll(plugins, 0o755))
	// A copy, not a link: an agent reads the plugin's name from the file's.
	binary, err := os.ReadFile(pluginBinary)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(plugins, "nomad-promptflow"), binary, 0o755))

	ports := freePorts(t, 6)
	n := &Nomad{Address: fmt.Sprintf("http://127.0.0.1:%d", ports[3]), PluginDir: plugins, bin: nomadBin}
	n.server = newNomadAgent(t, nomadBin, dir, "server", ports[0:3], `
server {
  enabled          = true
  bootstrap_expect = 1
}
`)
	n.client = newNomadAgent(t, nomadBin, dir, "client", ports[3:6], fmt.Sprintf(`
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
`, plugins, ports[1], pluginConfig))
	// The client is ready only with the server's word.
	n.server.start(t)
	n.client.start(t)
	n.awaitReady(t)
	return n
}

func newNomadAgent(t testing.TB, bin, dir, name string, ports []int, config string) *nomadAgent {
	t.Helper()
	a := &nomadAgent{bin: bin, config: filepath.Join(dir, name+".hcl")}
	must(t, os.WriteFile(a.config, fmt.Appendf(nil, `
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
%s`, name, filepath.Join(dir, name), ports[0], ports[1], ports[2], config), 0o600))
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
	a.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), a.bin, "agent", "-config", a.config)
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
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = a.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		_ = a.cmd.Process.Kill()
		<-done
	}
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

// RestartClient stops the client (SIGTERM, or SIGKILL when hard) and starts it again on the same state. The server goes on, as servers
// do on other machines.
func (n *Nomad) RestartClient(t testing.TB, hard bool) {
	t.Helper()
	if hard {
		must(t, n.client.cmd.Process.Kill())
		_ = n.client.cmd.Wait()
	} else {
		n.client.stop()
	}
	n.client.start(t)
	n.awaitReady(t)
}

// Get decodes the answer of an API call.
func (n *Nomad) Get(path string, into any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.Address+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: status %d", path, resp.StatusCode)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// Run runs the nomad CLI against the agent and returns what it printed.
func (n *Nomad) Run(t testing.TB, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), n.bin, args...)
	cmd.Env = append(os.Environ(), "NOMAD_ADDR="+n.Address)
	out, err := cmd.CombinedOutput()
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

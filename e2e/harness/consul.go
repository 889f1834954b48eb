package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const (
	consulStart = 30 * time.Second
	consulStop  = 10 * time.Second
)

// Consul is a real Consul agent on loopback, a server of one.
type Consul struct {
	// Address of its HTTP API, host:port.
	Address string
}

// ConsulBinary returns the consul binary to test with: CONSUL_BIN, else the one that make e2e-nomad built, else the one on PATH, else "".
func ConsulBinary(t testing.TB) string {
	t.Helper()
	if bin := os.Getenv("CONSUL_BIN"); bin != "" {
		return bin
	}
	built := filepath.Join(Root(t), ".build", "bin", "consul")
	if _, err := os.Stat(built); err == nil {
		return built
	}
	bin, err := exec.LookPath("consul")
	if err != nil {
		return ""
	}
	return bin
}

// StartConsul starts an agent, which ends with the test.
func StartConsul(t testing.TB, bin string) *Consul {
	t.Helper()
	ports := freePorts(t, 4)
	log, err := os.Create(filepath.Join(t.TempDir(), "consul.log"))
	must(t, err)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), bin, "agent", "-dev", "-bind", "127.0.0.1", "-client", "127.0.0.1",
		"-http-port", fmt.Sprint(ports[0]), "-server-port", fmt.Sprint(ports[1]), "-serf-lan-port", fmt.Sprint(ports[2]),
		"-serf-wan-port", fmt.Sprint(ports[3]), "-dns-port", "-1", "-grpc-port", "-1")
	cmd.Stdout, cmd.Stderr = log, log
	must(t, cmd.Start())
	t.Cleanup(func() {
		endProcess(cmd, consulStop)
		if content, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("consul's log:\n%s", content)
		}
	})
	c := &Consul{Address: fmt.Sprintf("127.0.0.1:%d", ports[0])}
	Eventually(t, consulStart, "consul with a leader", func() error {
		var leader string
		if err := c.Get("/v1/status/leader", &leader); err != nil {
			return err
		}
		if leader == "" {
			return errors.New("no leader")
		}
		return nil
	})
	return c
}

// Get decodes the answer of an API call.
func (c *Consul) Get(path string, into any) error {
	return getJSON("http://"+c.Address+path, into)
}

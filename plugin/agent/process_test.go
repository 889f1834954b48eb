package agent

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// raw is the plugin process with nothing of go-plugin on our side.
type raw struct {
	cmd    *exec.Cmd
	line   string // the first on stdout
	socket string
	stderr *os.File
}

func startRaw(t *testing.T) *raw {
	t.Helper()
	exe, err := os.Executable()
	must.NoError(t, err)
	reader, writer, err := os.Pipe()
	must.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), plugin.Handshake.MagicCookieKey+"="+plugin.Handshake.MagicCookieValue,
		"PLUGIN_MIN_PORT=10000", "PLUGIN_MAX_PORT=25000", "PLUGIN_PROTOCOL_VERSIONS=2", "TMPDIR="+t.TempDir())
	cmd.Stderr = writer
	stdout, err := cmd.StdoutPipe()
	must.NoError(t, err)
	must.NoError(t, cmd.Start())
	must.NoError(t, writer.Close())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = reader.Close()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	must.NoError(t, err)
	return &raw{cmd: cmd, line: line, socket: strings.Split(line, "|")[3], stderr: reader}
}

func (r *raw) attach(t *testing.T) *Plugin {
	t.Helper()
	p, err := Reattach(&ReattachConfig{
		Protocol: goplugin.ProtocolGRPC, ProtocolVersion: 2, Pid: r.cmd.Process.Pid,
		Addr: unixAddr(r.socket),
	}, nil)
	must.NoError(t, err)
	return p
}

type unixAddr string

func (unixAddr) Network() string  { return "unix" }
func (a unixAddr) String() string { return string(a) }

func TestPlugin_speaksTheHandshake(t *testing.T) {
	t.Parallel()
	r := startRaw(t)
	// The seventh field is there only for agents that ask for multiplexing, which Nomad's do not.
	test.RegexMatch(t, regexp.MustCompile(`^1\|2\|unix\|/[^|]+\|grpc\|\n$`), r.line)
	info, err := os.Stat(r.socket)
	must.NoError(t, err)
	test.NotEq(t, 0, info.Mode()&os.ModeSocket)
}

func TestPlugin_logsJSONLines(t *testing.T) {
	t.Parallel()
	r := startRaw(t)
	line, err := bufio.NewReader(r.stderr).ReadBytes('\n')
	must.NoError(t, err)
	var entry map[string]any
	must.NoError(t, json.Unmarshal(line, &entry), must.Sprint(string(line)))
	for _, key := range []string{"@message", "@level", "@timestamp"} {
		_, isString := entry[key].(string)
		test.True(t, isString, test.Sprint("an agent asserts that it is a string: ", key))
	}
	_, err = time.Parse("2006-01-02T15:04:05.000000Z07:00", entry["@timestamp"].(string))
	test.NoError(t, err)
}

// The agent was killed: nobody reads the plugin's stderr any more. The plugin logs on, and lives.
func TestPlugin_outlivesItsAgent(t *testing.T) {
	t.Parallel()
	r := startRaw(t)
	must.NoError(t, r.stderr.Close())
	p := r.attach(t)
	for range 3 {
		// The test driver logs each of these.
		must.NoError(t, p.Init(t.Context()))
	}
	info, err := p.Info(t.Context())
	must.NoError(t, err)
	must.Eq(t, "test", info.Name)
	must.NoError(t, r.cmd.Process.Signal(syscall.SIGINT), must.Sprint("an interrupt is for the agent"))
	_, err = p.Info(t.Context())
	must.NoError(t, err)
}

func TestPlugin_handsNoIgnoredSignalToItsChildren(t *testing.T) {
	t.Parallel()
	r := startRaw(t)
	test.Eq(t, ignoredSignals(t, os.Getpid()), ignoredSignals(t, r.cmd.Process.Pid), test.Sprint("beyond what it was started with"))
}

// ignoredSignals is the set of signals that a process ignores, which its children inherit.
func ignoredSignals(t *testing.T, pid int) string {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must.NoError(t, err)
	ignored := regexp.MustCompile(`(?m)^SigIgn:\s+([0-9a-f]+)$`).FindStringSubmatch(string(status))
	must.SliceLen(t, 2, ignored)
	return ignored[1]
}

func TestPlugin_endsWhenItsAgentCloses(t *testing.T) {
	t.Parallel()
	p := launch(t)
	pid := p.PID()
	must.NoError(t, p.Init(t.Context()))
	p.Close()
	must.True(t, p.Exited())
	must.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH, must.Sprint("neither running nor a zombie"))
	p.Close() // again does nothing
}

func TestPlugin_givesItsLogToTheAgent(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	must.NoError(t, err)
	reader, writer := io.Pipe()
	lines := make(chan string, 100)
	go func() {
		scanner := bufio.NewScanner(reader)
		for scanner.Scan() {
			select {
			case lines <- scanner.Text():
			default:
			}
		}
	}()
	p, err := Launch(Options{Path: exe, Logger: hclog.New(&hclog.LoggerOptions{Output: writer, Level: hclog.Trace})})
	must.NoError(t, err)
	t.Cleanup(func() {
		p.Close()
		must.NoError(t, writer.Close())
	})
	must.NoError(t, p.Init(t.Context()))
	timeout := time.After(bound)
	for {
		select {
		case line := <-lines:
			if strings.Contains(line, "init: ") && strings.Contains(line, "count=1") {
				return
			}
		case <-timeout:
			t.Fatal("the plugin's line never came")
		}
	}
}

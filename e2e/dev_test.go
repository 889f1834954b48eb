package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/flows"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/openai"
)

// devTimeout bounds one dev, the building of the base image included.
const devTimeout = 15 * time.Minute

// dev runs `nomad-promptflow dev` to its end and returns what it printed.
func dev(t *testing.T, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), devTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, harness.Binary(t), append([]string{"dev", "-port", "0", "-base-cache", harness.BaseCache(t)}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatalf("start dev: %v", err)
	}
	t.Logf("dev printed:\n%s", errs.String())
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// dataDir is a folder for one dev; containerd's overlays cannot lie on a tmpfs.
func dataDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(harness.Root(t), ".build", "e2e")
	must.NoError(t, os.MkdirAll(dir, 0o755))
	dir, err := os.MkdirTemp(dir, "dev-") //nolint:usetesting // the temporary folder may be a tmpfs
	must.NoError(t, err)
	t.Cleanup(func() { must.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// mustLeaveNothing fails when a dev left a run folder, a mount or a process behind.
func mustLeaveNothing(t *testing.T, dir string) {
	t.Helper()
	runs, err := filepath.Glob("/run/npf-dev-*")
	must.NoError(t, err)
	test.SliceEmpty(t, runs, test.Sprint("temporary folders"))
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must.NoError(t, err)
	test.StrNotContains(t, string(mounts), "/run/npf-dev-")
	test.StrNotContains(t, string(mounts), dir)
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must.NoError(t, err)
	for _, process := range processes {
		line, err := os.ReadFile(process)
		if err != nil {
			continue // it has ended meanwhile
		}
		command := strings.ReplaceAll(string(line), "\x00", " ")
		left := strings.Contains(command, "npf-dev-") || strings.Contains(command, dir) || strings.Contains(command, "-namespace promptflow-dev")
		test.False(t, left, test.Sprintf("%s: %s", process, command))
	}
}

func TestDev_runs_a_real_flow_as_prompt_flow_itself_does(t *testing.T) {
	harness.Integration(t)
	t.Log("this path goes through the agent's side of the plugin protocol, without a Nomad agent")
	data := filepath.Join(flows.Dir(t, flows.TicketTriage), "data.jsonl")
	want := flows.RunUpstream(t, flows.TicketTriage, data, "{}")
	dir := dataDir(t)

	command := fmt.Sprintf("%s run %s -data %s -json", harness.Binary(t), flows.Dir(t, flows.TicketTriage), data)
	stdout, _, code := dev(t, nil, "-data-dir", dir, "-count", "2", "-exec", command)
	must.Eq(t, 0, code)
	got := result(t, stdout)
	test.Eq(t, api.StatusCompleted, got.Status)
	must.Eq(t, len(want.Outputs), len(got.Outputs))
	for i, output := range got.Outputs {
		var object map[string]any
		must.NoError(t, json.Unmarshal(output, &object))
		test.Eq(t, want.Outputs[i], object)
	}
	var metrics map[string]float64
	must.NoError(t, json.Unmarshal(got.Metrics, &metrics))
	test.Eq(t, want.Metrics, metrics)
	statuses := make([]map[string]string, len(want.Statuses))
	for _, node := range got.NodeRuns {
		if node.Index == nil {
			continue // of the aggregation
		}
		if statuses[*node.Index] == nil {
			statuses[*node.Index] = map[string]string{}
		}
		statuses[*node.Index][node.Node] = node.Status
	}
	test.Eq(t, want.Statuses, statuses)
	mustLeaveNothing(t, dir)
}

// result reads the result that `run -json` printed after dev's own lines.
func result(t *testing.T, stdout string) api.RunResult {
	t.Helper()
	start := strings.Index(stdout, "\n{")
	must.Positive(t, start+1, must.Sprint(stdout))
	var r api.RunResult
	must.NoError(t, json.Unmarshal([]byte(stdout[start:]), &r), must.Sprint(stdout))
	return r
}

func TestDev_asks_models_that_the_environment_names(t *testing.T) {
	harness.Integration(t)
	server, url := openai.Start(t)
	dir := dataDir(t)
	env := []string{"OPENAI_API_KEY=" + openai.Key, "OPENAI_BASE_URL=" + url + "/v1"}

	command := fmt.Sprintf("%s run %s --input question='Where is my parcel?'", harness.Binary(t), flows.Dir(t, flows.ChatSupport))
	stdout, _, code := dev(t, env, "-data-dir", dir, "-exec", command)
	must.Eq(t, 0, code)
	test.StrContains(t, stdout, "answer: [2] user said: Where is my parcel?")
	test.SliceLen(t, 1, server.Requests())
	mustLeaveNothing(t, dir)
}

func TestDev_tells_what_went_wrong_in_a_flow_and_leaves_nothing(t *testing.T) {
	harness.Integration(t)
	dir := dataDir(t)
	broken := t.TempDir()
	must.NoError(t, os.WriteFile(filepath.Join(broken, "flow.dag.yaml"), []byte(`inputs:
  text: {type: string}
outputs:
  out: {type: string, reference: "${fail.output}"}
nodes:
- name: fail
  type: python
  source: {type: code, path: fail.py}
  inputs: {text: "${inputs.text}"}
`), 0o600))
	must.NoError(t, os.WriteFile(filepath.Join(broken, "fail.py"), []byte("from promptflow.core import tool\n@tool\ndef fail(text: str):\n    return {}[text]\n"), 0o600))
	empty := t.TempDir()
	yaml := t.TempDir()
	must.NoError(t, os.WriteFile(filepath.Join(yaml, "flow.dag.yaml"), []byte("inputs:\n  a: {type: string}\nnodes:\n- name: [\n"), 0o600))

	bin := harness.Binary(t)
	// Every command's exit code is printed: it must be the one that the README promises.
	script := fmt.Sprintf(`
%[1]s run %[2]s -input text=x; echo "exception $?"
%[1]s run %[2]s; echo "missing $?"
%[1]s run %[3]s; echo "none $?"
%[1]s run %[4]s; echo "yaml $?"
%[1]s run %[2]s -input text; echo "usage $?"
%[1]s run %[2]s -runtime dve; echo "runtime $?"
OPENAI_API_KEY= %[1]s run %[5]s -input question=x; echo "endpoint $?"
%[1]s run %[2]s -input text=x -address http://127.0.0.1:1; echo "address $?"
`, bin, broken, empty, yaml, flows.Dir(t, flows.ChatSupport))
	env := []string{"OPENAI_API_KEY=k", "OPENAI_BASE_URL=http://127.0.0.1:9/v1"}
	stdout, stderr, code := dev(t, env, "-data-dir", dir, "-exec", script)
	must.Eq(t, 0, code)
	for _, line := range []string{"exception 1", "missing 1", "none 1", "yaml 1", "usage 2", "runtime 1", "endpoint 1", "address 1"} {
		test.StrContains(t, stdout, line+"\n")
	}
	for _, text := range []string{
		"Execution failure in 'fail': (KeyError) 'x'",
		"The value for flow input 'text' is not provided",
		"looked for flow.dag.yaml",
		"flow.dag.yaml:4",
		`want NAME=VALUE`,
		`runtime "dve"`,
		"127.0.0.1:9",
		"reach http://127.0.0.1:1",
	} {
		test.StrContains(t, stderr, text)
	}
	mustLeaveNothing(t, dir)
}

func TestDev_ends_with_an_interrupt_and_leaves_nothing(t *testing.T) {
	harness.Integration(t)
	dir := dataDir(t)
	ctx, cancel := context.WithTimeout(t.Context(), devTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, harness.Binary(t), "dev", "-port", "0", "-base-cache", harness.BaseCache(t), "-data-dir", dir)
	reader, writer := io.Pipe()
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = writer, &stderr
	must.NoError(t, cmd.Start())
	printed := make([]byte, 4096)
	n, err := reader.Read(printed)
	must.NoError(t, err)
	go func() { _, _ = io.Copy(io.Discard, reader) }()
	address := strings.Fields(string(printed[:n]))[1]
	resp, err := get(ctx, address+"/ready")
	must.NoError(t, err)
	test.Eq(t, http.StatusOK, resp)

	must.NoError(t, cmd.Process.Signal(os.Interrupt))
	err = cmd.Wait()
	must.NoError(t, err, must.Sprint(stderr.String()))
	mustLeaveNothing(t, dir)
}

func TestDev_takes_down_what_a_killed_one_left(t *testing.T) {
	harness.Integration(t)
	dir := dataDir(t)
	ctx, cancel := context.WithTimeout(t.Context(), devTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, harness.Binary(t), "dev", "-port", "0", "-base-cache", harness.BaseCache(t), "-data-dir", dir)
	stdout, err := cmd.StdoutPipe()
	must.NoError(t, err)
	must.NoError(t, cmd.Start())
	_, err = stdout.Read(make([]byte, 1)) // it is up when it prints its addresses
	must.NoError(t, err)
	must.NoError(t, cmd.Process.Kill())
	must.Error(t, cmd.Wait())

	_, stderr, code := dev(t, nil, "-data-dir", dir, "-exec", "true")
	test.Eq(t, 0, code)
	test.StrContains(t, stderr, "an earlier dev was killed")
	mustLeaveNothing(t, dir)
}

func get(ctx context.Context, url string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func TestDev_refuses_to_start(t *testing.T) {
	harness.Integration(t)
	var lc net.ListenConfig
	taken, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	must.NoError(t, err)
	defer func() { must.NoError(t, taken.Close()) }()
	port := fmt.Sprint(taken.Addr().(*net.TCPAddr).Port)

	tests := []struct {
		name string
		env  []string
		args []string
		says string
		code int
	}{
		{name: "on a taken port", args: []string{"-port", port}, says: "port " + port + " is taken", code: 1},
		{name: "with a containerd that is not there", args: []string{"-containerd", "/nonexistent.sock"}, says: "reach containerd at /nonexistent.sock", code: 1},
		{name: "without containerd", env: []string{"PATH=/nonexistent"}, says: "apt-get install containerd runc", code: 1},
		{name: "with a wrong variable of the job", args: []string{"-var", "cpu=x"}, says: "cpu", code: 1},
		{name: "with an unknown variable of the job", args: []string{"-var", "colour=red"}, says: "colour", code: 1},
		{name: "with an unknown option", args: []string{"-colour"}, says: "colour", code: 2},
		{name: "with no instance", args: []string{"-count", "0"}, says: "at least one instance", code: 2},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			dir := dataDir(t)
			_, stderr, code := dev(t, tc.env, append([]string{"-data-dir", dir, "-exec", "true"}, tc.args...)...)
			test.Eq(t, tc.code, code)
			test.StrContains(t, stderr, tc.says)
			mustLeaveNothing(t, dir)
		})
	}
}

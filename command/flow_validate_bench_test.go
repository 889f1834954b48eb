package command

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/shoenig/test/must"
	"github.com/shoenig/test/wait"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
)

// againGoal is how long it may take from the change of a file to the answer on the author's screen.
const againGoal = 100 * time.Millisecond

// BenchmarkValidateAgain changes one file of a flow that `flow validate -watch` watches, and measures until the findings are printed:
// the program, the runtime and Python are the real ones, each a process of its own. Against it stands `pf flow validate` of the
// same flow, on the same machine in the same run, with its telemetry switched off.
//
// Run: PROMPTFLOW_INTEGRATION=1 go test -run '^$' -bench ValidateAgain -benchtime 30x ./command
func BenchmarkValidateAgain(b *testing.B) {
	harness.Integration(b)
	address := startRuntime(b)
	theirs := promptFlowValidates(b)
	var figures []map[string]any
	for _, c := range []struct{ row, file, comment string }{
		{"validate again after one changed Python file", "route.py", "# %d\n"},
		{"validate again after one changed Python file that imports a client library", "client.py", "# %d\n"},
		{"validate again after one changed prompt", "draft_reply.jinja2", "{# %d #}\n"},
	} {
		b.Run(c.row, func(b *testing.B) {
			dir := benchFlow(b)
			next := watching(b, dir, address)
			must.Eq(b, api.ResultSucceeded, next().Result)
			path := filepath.Join(dir, c.file)
			text, err := os.ReadFile(path)
			must.NoError(b, err)
			change := func() time.Duration {
				text = fmt.Appendf(text, c.comment, len(text))
				began := time.Now()
				must.NoError(b, os.WriteFile(path, text, 0o600))
				v := next()
				took := time.Since(began)
				must.Eq(b, api.ResultSucceeded, v.Result)
				must.Eq(b, 1, v.Checked)
				return took
			}
			change() // what the flow imports from outside is warm after it
			var took []time.Duration
			for b.Loop() {
				took = append(took, change())
			}
			slices.Sort(took)
			ours := took[len(took)/2]
			b.ReportMetric(float64(ours.Microseconds())/1000, "median-ms")
			b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
			b.Logf("%s: %s, pf flow validate %s, median of %d", c.row, ours, theirs, len(took))
			figures = append(figures, figure("runtime: "+c.row+", end to end", ours, theirs))
		})
	}
	writeFigures(b, "runtime-validate", figures)
}

func figure(row string, ours, theirs time.Duration) map[string]any {
	milliseconds := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return map[string]any{
		"row": row, "unit": "ms", "ours": milliseconds(ours), "against": "pf flow validate, same flow, telemetry off",
		"theirs": milliseconds(theirs), "ratio": float64(ours) / float64(theirs), "goal": milliseconds(againGoal), "goal_unit": "ms", "met": ours <= againGoal,
	}
}

// writeFigures adds to the figures that `make bench` prints.
func writeFigures(b *testing.B, name string, figures []map[string]any) {
	b.Helper()
	dir := filepath.Join(harness.Root(b), ".build", "bench")
	must.NoError(b, os.MkdirAll(dir, 0o755))
	content, err := json.MarshalIndent(figures, "", "  ")
	must.NoError(b, err)
	must.NoError(b, os.WriteFile(filepath.Join(dir, name+".json"), append(content, '\n'), 0o644))
}

// benchFlow is the example flow with one more tool, which imports what takes long.
func benchFlow(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	must.NoError(b, os.CopyFS(dir, os.DirFS(filepath.Join(harness.Root(b), "e2e/flows/ticket-triage"))))
	client := "import openai\nfrom promptflow.core import tool\n\n\n@tool\ndef client(x: str = \"\") -> str:\n    return openai.__name__ + x\n"
	must.NoError(b, os.WriteFile(filepath.Join(dir, "client.py"), []byte(client), 0o600))
	file, err := os.OpenFile(filepath.Join(dir, "flow.dag.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	must.NoError(b, err)
	_, err = io.WriteString(file, "- {name: client, type: python, source: {type: code, path: client.py}}\n")
	must.NoError(b, err)
	must.NoError(b, file.Close())
	return dir
}

// startRuntime starts the program's runtime and returns its address.
func startRuntime(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("", "pf-") //nolint:usetesting // a socket's path has at most 107 bytes
	must.NoError(b, err)
	address := "unix:" + filepath.Join(dir, "s")
	command := exec.CommandContext(b.Context(), harness.Binary(b), "runtime", "serve", "-listen", address, "-python", harness.Python(b), "-log-level", "warn")
	command.Env = append(os.Environ(), "PROMPTFLOW_DATA="+filepath.Join(dir, "data"))
	command.Stderr = os.Stderr
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	must.NoError(b, command.Start())
	b.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		_ = command.Wait()
		_ = os.RemoveAll(dir)
	})
	client, err := api.NewClient(address, "")
	must.NoError(b, err)
	must.Wait(b, wait.InitialSuccess(wait.ErrorFunc(func() error { return client.Ready(b.Context()) }), wait.Timeout(time.Minute), wait.Gap(20*time.Millisecond)))
	return address
}

// watching starts `flow validate -watch` and returns what reads the next validation.
func watching(b *testing.B, dir, address string) func() *api.Validation {
	b.Helper()
	command := exec.CommandContext(b.Context(), harness.Binary(b), "flow", "validate", dir, "-watch", "-json", "-direct", "-address", address)
	out, err := command.StdoutPipe()
	must.NoError(b, err)
	notes, err := command.StderrPipe()
	must.NoError(b, err)
	must.NoError(b, command.Start())
	b.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGINT)
		_ = command.Wait()
	})
	lines := bufio.NewReader(out)
	read := func() *api.Validation {
		line, err := lines.ReadBytes('\n')
		must.NoError(b, err)
		v := &api.Validation{}
		must.NoError(b, json.Unmarshal(line, v))
		return v
	}
	first := true
	return func() *api.Validation {
		v := read()
		if first { // it watches once it says so
			first = false
			_, err := bufio.NewReader(notes).ReadString('\n')
			must.NoError(b, err)
		}
		return v
	}
}

// promptFlowValidates measures `pf flow validate` and returns the median.
func promptFlowValidates(b *testing.B) time.Duration {
	b.Helper()
	pf := filepath.Join(filepath.Dir(harness.Python(b)), "pf")
	home := b.TempDir()
	run := func(args ...string) time.Duration {
		command := exec.CommandContext(b.Context(), pf, args...)
		command.Env = append(os.Environ(), "HOME="+home, "PF_HOME_DIRECTORY="+home)
		began := time.Now()
		out, err := command.CombinedOutput()
		must.NoError(b, err, must.Sprint(string(out)))
		return time.Since(began)
	}
	run("config", "set", "telemetry.enabled=false")
	dir := benchFlow(b)
	run("flow", "validate", "--source", dir)
	var took []time.Duration
	for range 5 {
		took = append(took, run("flow", "validate", "--source", dir))
	}
	slices.Sort(took)
	return took[len(took)/2]
}

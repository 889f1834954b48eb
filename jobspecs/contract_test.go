package jobspecs_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/jobspecs"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/agent"
)

// settings are variables to evaluate the shared job with.
var settings = []struct {
	name string
	vars map[string]string
}{
	{"defaults", nil},
	{"environment", map[string]string{
		"name": "team-nlp", "count": "3", "environment": "team-nlp:3", "max_concurrency": "8", "workers": "2", "cpu": "500", "memory": "512",
	}},
	{"image", map[string]string{
		"name": "img", "image": "registry.example/nlp:1", "image_pull_policy": "always", "flow": "/local/flow", "memory_max": "4096",
		"network_mode": "bridge", "service_provider": "nomad", "token_variable": "nomad/jobs/img", "env": `{ A = "b", N = 1 }`,
	}},
}

// TestTask_configOfDriver is the contract between the files and the driver, which is why the driver is imported: what a file sets, the
// driver has an option for, and it arrives there.
func TestTask_configOfDriver(t *testing.T) {
	t.Parallel()
	want := map[string]driver.TaskConfig{
		"defaults": {Environment: "default", ImagePullPolicy: driver.PullIfNotPresent, MaxConcurrency: 32, Ports: []string{"http"}, NoNewPrivileges: true},
		"environment": {
			Environment: "team-nlp:3", ImagePullPolicy: driver.PullIfNotPresent, MaxConcurrency: 8, Workers: 2, Ports: []string{"http"}, NoNewPrivileges: true,
		},
		"image": {
			Image: "registry.example/nlp:1", ImagePullPolicy: driver.PullAlways, Flow: "/local/flow", MaxConcurrency: 32, Ports: []string{"http"}, NoNewPrivileges: true,
		},
	}
	schema := driver.New(driver.Parts{}).TaskConfigSchema()
	for _, c := range settings {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			task, err := jobspecs.Shared.Task(c.vars)
			must.NoError(t, err)
			encoded, err := agent.DecodeConfig(schema, task.Config, nil)
			must.NoError(t, err)
			var got driver.TaskConfig
			must.NoError(t, plugin.DecodeConfig(encoded, &got))
			// Whether a list is missing or empty makes no difference.
			must.Eq(t, "", cmp.Diff(want[c.name], got, cmpopts.EquateEmpty()))
			must.Eq(t, "promptflow", task.Driver)
		})
	}
}

// nomadJob is what Nomad's own parser makes of a job.
type nomadJob struct {
	Job struct {
		ID         string
		TaskGroups []struct {
			Name     string
			Count    int
			Services []struct{ Name, PortLabel string }
			Networks []struct{ DynamicPorts []struct{ Label string } }
			Tasks    []struct {
				Name, Driver string
				Config       map[string]any
				Env          map[string]string
				KillTimeout  int64
				Resources    struct{ CPU, MemoryMB, MemoryMaxMB int64 }
				Templates    []struct{ DestPath, EmbeddedTmpl string }
			}
		}
	}
}

// TestTask_asNomadReadsIt compares our evaluation with that of Nomad's command, and lets the command validate the job.
func TestTask_asNomadReadsIt(t *testing.T) {
	harness.Integration(t)
	nomad := harness.NomadBinary()
	if nomad == "" {
		t.Skip("no nomad binary at hand: put one on PATH or name it with NOMAD_BIN")
	}
	file := filepath.Join(t.TempDir(), jobspecs.Shared.File())
	must.NoError(t, os.WriteFile(file, []byte(jobspecs.Shared.Source()), 0o600))
	for _, c := range settings {
		t.Run(c.name, func(t *testing.T) {
			run(t, nomad, "job", c.vars, "validate", file)
			var parsed nomadJob
			must.NoError(t, json.Unmarshal(run(t, nomad, "job", c.vars, "run", "-output", file), &parsed))
			task, err := jobspecs.Shared.Task(c.vars)
			must.NoError(t, err)
			compare(t, parsed, task)
		})
	}
}

func compare(t *testing.T, parsed nomadJob, task jobspecs.Task) {
	t.Helper()
	must.Len(t, 1, parsed.Job.TaskGroups)
	group := parsed.Job.TaskGroups[0]
	must.Len(t, 1, group.Tasks)
	theirs := group.Tasks[0]
	must.Eq(t, parsed.Job.ID, task.Job)
	must.Eq(t, group.Name, task.Group)
	must.Eq(t, group.Count, task.Count)
	must.Eq(t, group.Services[0].Name, task.Service)
	must.Eq(t, []string{group.Networks[0].DynamicPorts[0].Label}, task.Ports)
	must.Eq(t, group.Services[0].PortLabel, task.Ports[0])
	must.Eq(t, theirs.Name, task.Name)
	must.Eq(t, theirs.Driver, task.Driver)
	must.Eq(t, theirs.KillTimeout, int64(task.KillTimeout))
	must.Eq(t, theirs.Resources.CPU, task.CPU)
	must.Eq(t, theirs.Resources.MemoryMB, task.MemoryMB)
	must.Eq(t, theirs.Resources.MemoryMaxMB, task.MemoryMaxMB)
	must.Eq(t, theirs.Env, task.Env)
	must.Eq(t, theirs.Env["PROMPTFLOW_TRUST"] != "", len(theirs.Templates) == 1)

	// The driver sees the same, whether the options come from Nomad's parser or from ours.
	schema := driver.New(driver.Parts{}).TaskConfigSchema()
	ours, err := agent.DecodeConfig(schema, task.Config, nil)
	must.NoError(t, err)
	wanted, err := agent.DecodeConfig(schema, asBody(t, theirs.Config), nil)
	must.NoError(t, err)
	must.Eq(t, wanted, ours)
}

// asBody writes options as attributes whose values are JSON, which is valid HCL for plain values.
func asBody(t *testing.T, config map[string]any) string {
	t.Helper()
	var body bytes.Buffer
	for name, value := range config {
		encoded, err := json.Marshal(value)
		must.NoError(t, err)
		body.WriteString(name + " = " + string(encoded) + "\n")
	}
	return body.String()
}

// run runs `nomad job` with the variables behind its flags. No agent is asked: nobody listens at the address.
func run(t *testing.T, nomad, command string, vars map[string]string, args ...string) []byte {
	t.Helper()
	line := append([]string{command}, args[:len(args)-1]...)
	for name, value := range vars {
		line = append(line, "-var", name+"="+value)
	}
	cmd := exec.CommandContext(t.Context(), nomad, append(line, args[len(args)-1])...)
	cmd.Env = append(os.Environ(), "NOMAD_ADDR=http://127.0.0.1:1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	must.NoError(t, err, must.Sprintf("nomad %v: %s%s", line, out, stderr.String()))
	return out
}

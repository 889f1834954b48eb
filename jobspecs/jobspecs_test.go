package jobspecs

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

// jobs are all job files of the package.
var jobs = []Job{Shared}

func TestJob_Task_defaults(t *testing.T) {
	t.Parallel()
	task, err := Shared.Task(nil)
	must.NoError(t, err)
	must.Eq(t, Task{
		Job: "shared", Group: "runtime", Name: "runtime", Driver: "promptflow", Count: 1, CPU: 1000, MemoryMB: 1024,
		KillTimeout: 30 * time.Second, Ports: []string{"http"}, Service: "promptflow-shared",
		Env: map[string]string{"PROMPTFLOW_RUNTIME": "shared", "PROMPTFLOW_RUNTIME_TYPE": "shared", "PROMPTFLOW_TRUST": ""},
		Config: `environment       = "default"
image_pull_policy = "if-not-present"
max_concurrency   = 32
workers           = 0
ports             = ["http"]
`,
	}, task)
}

func TestJob_Task_everyVariableSet(t *testing.T) {
	t.Parallel()
	task, err := Shared.Task(map[string]string{
		"name": "team-nlp", "count": "3", "datacenters": `["dc1", "edge-*"]`, "environment": "team-nlp:3", "image": "registry.example/nlp:1",
		"image_pull_policy": "always", "flow": "/local/${flow}", "max_concurrency": "8", "workers": "2", "cpu": "500", "memory": "512",
		"memory_max": "2048", "network_mode": "bridge", "service_provider": "nomad", "token_variable": "nomad/jobs/team-nlp",
		"env": `{ OPENAI_BASE_URL = "https://llm.example/v1", PROMPTFLOW_RUNTIME = "another" }`,
	})
	must.NoError(t, err)
	must.Eq(t, Task{
		Job: "team-nlp", Group: "runtime", Name: "runtime", Driver: "promptflow", Count: 3, CPU: 500, MemoryMB: 512, MemoryMaxMB: 2048,
		KillTimeout: 30 * time.Second, Ports: []string{"http"}, Service: "promptflow-team-nlp",
		Env: map[string]string{
			"OPENAI_BASE_URL": "https://llm.example/v1", "PROMPTFLOW_RUNTIME": "team-nlp", "PROMPTFLOW_RUNTIME_TYPE": "shared",
			"PROMPTFLOW_TRUST": "file:/secrets/token",
		},
		Config: `image             = "registry.example/nlp:1"
image_pull_policy = "always"
flow              = "/local/$${flow}"
max_concurrency   = 8
workers           = 2
ports             = ["http"]
`,
	}, task)
}

func TestJob_Task_values(t *testing.T) {
	t.Parallel()
	cases := []struct {
		variable, value string
		err             string // part of the error; empty: the value is right
	}{
		{"name", "a", ""},
		{"name", "0-a--b", ""},
		{"name", strings.Repeat("a", 52), ""},
		{"name", strings.Repeat("a", 53), "1 to 52 lower case letters"},
		{"name", "", "1 to 52 lower case letters"},
		{"name", "Team", "1 to 52 lower case letters"},
		{"name", "team_nlp", "1 to 52 lower case letters"},
		{"name", "-team", "1 to 52 lower case letters"},
		{"name", "team-", "1 to 52 lower case letters"},
		{"name", "team\nteam", "1 to 52 lower case letters"},
		{"count", "0", ""},
		{"count", "50000", ""},
		{"count", "50001", "whole number from 0 to 50000"},
		{"count", "-1", "whole number from 0 to 50000"},
		{"count", "1.5", "whole number from 0 to 50000"},
		{"count", "1e30", "whole number from 0 to 50000"},
		{"count", "many", "Variables not allowed"},
		{"count", `"many"`, "a number is required"},
		{"count", "", `parse "" as number`},
		{"count", "null", "it needs a value"},
		{"datacenters", `["dc1"]`, ""},
		{"datacenters", `[]`, "Name one datacenter or more"},
		{"datacenters", `[""]`, "Name one datacenter or more"},
		{"datacenters", `dc1`, "Variables not allowed"},
		{"datacenters", `"dc1"`, "list of string required"},
		{"environment", "default", ""},
		{"environment", "team-nlp:3", ""},
		{"environment", "team.nlp_a:V1.2-rc", ""},
		{"environment", "", "NAME or NAME:VERSION"},
		{"environment", "Team", "NAME or NAME:VERSION"},
		{"environment", "team:", "NAME or NAME:VERSION"},
		{"environment", "registry.example/team:1", "NAME or NAME:VERSION"},
		{"environment", "team:.1", "NAME or NAME:VERSION"},
		{"image_pull_policy", "never", ""},
		{"image_pull_policy", "sometimes", "if-not-present, always or never"},
		{"max_concurrency", "1", ""},
		{"max_concurrency", "0", "whole number of 1 or more"},
		{"max_concurrency", "2.5", "whole number of 1 or more"},
		{"workers", "0", ""},
		{"workers", "-1", "whole number of 0 or more"},
		{"cpu", "1", ""},
		{"cpu", "0", "1 or more MHz"},
		{"memory", "64", ""},
		{"memory", "63", "64 or more MiB"},
		{"memory_max", "1", ""},
		{"memory_max", "-1", "or 0 for none"},
		{"network_mode", "bridge", ""},
		{"network_mode", "none", "host or bridge"},
		{"service_provider", "nomad", ""},
		{"service_provider", "etcd", "consul or nomad"},
		{"token_variable", "nomad/jobs/a_b~c-d", ""},
		{"token_variable", `x" }}`, "path of a Nomad variable"},
		{"env", `{}`, ""},
		{"env", `{ A = 1 }`, ""},
		{"env", `A=1`, "parse"},
		{"env", `"A"`, "map of string required"},
		{"env", `{ A = file("/etc/passwd") }`, "Function calls not allowed"},
		{"cuont", "1", `no such variable: use one of count, cpu, datacenters`},
	}
	for _, c := range cases {
		t.Run(c.variable+"="+c.value, func(t *testing.T) {
			t.Parallel()
			_, err := Shared.Task(map[string]string{c.variable: c.value})
			if c.err == "" {
				must.NoError(t, err)
				return
			}
			must.Error(t, err)
			test.StrContains(t, err.Error(), "evaluate job shared.nomad.hcl: ")
			test.StrContains(t, err.Error(), c.variable)
			test.StrContains(t, err.Error(), c.err)
		})
	}
}

func TestJob_Task_reportsAllMistakesAtOnce(t *testing.T) {
	t.Parallel()
	_, err := Shared.Task(map[string]string{"count": "-1", "cpu": "0", "typo": "1"})
	must.Error(t, err)
	for _, name := range []string{`"count"`, `"cpu"`, `"typo"`} {
		test.StrContains(t, err.Error(), name)
	}
}

func TestJob_Task_brokenFile(t *testing.T) {
	t.Parallel()
	const rest = `
  group "g" {
    count = 1
    network {}
    service { name = "s" }
    task "t" {
      driver       = "d"
      kill_timeout = %KILL%
      env          = {}
      config {
        %CONFIG%
      }
      resources {
        cpu        = 1
        memory     = 1
        memory_max = 0
      }
    }
  }
}
`
	file := func(id, kill, config string) string {
		return "variable \"needed\" {\n type = string\n description = \"The needed one.\"\n}\njob \"j\" {\n id = " + id +
			strings.NewReplacer("%KILL%", kill, "%CONFIG%", config).Replace(rest)
	}
	good := map[string]string{"needed": "x"}
	cases := []struct {
		name, source string
		vars         map[string]string
		err          string
	}{
		{"fine", file("var.needed", `"1s"`, "labels {\n a = \"b\"\n }"), good, ""},
		{"syntax", `job "j" {`, nil, "parse job broken.nomad.hcl"},
		{"variable without a value", file("var.needed", `"1s"`, ""), nil, "it needs a value: The needed one."},
		{"unknown reference", file("var.other", `"1s"`, ""), good, "other"},
		{"duration", file("var.needed", `"soon"`, ""), good, "kill_timeout"},
		{"a name that only an agent knows", file("var.needed", `"1s"`, `x = "${NOMAD_ALLOC_ID}"`), good, `read config of task "t": evaluate x`},
		{"the same in a block", file("var.needed", `"1s"`, "labels {\n x = env.A\n }"), good, `labels: evaluate x`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			task, err := Job{file: "broken.nomad.hcl", source: []byte(c.source)}.Task(c.vars)
			if c.err == "" {
				must.NoError(t, err)
				must.Eq(t, "labels {\n  a = \"b\"\n}\n", task.Config)
				return
			}
			must.ErrorContains(t, err, c.err)
		})
	}
}

// TestJob_variables holds the files to what their users need: a type, a sentence and a default for every variable, and a use.
func TestJob_variables(t *testing.T) {
	t.Parallel()
	for _, job := range jobs {
		file, diags := hclsyntax.ParseConfig([]byte(job.Source()), job.File(), hcl.InitialPos)
		must.False(t, diags.HasErrors(), must.Sprint(diags))
		var blocks fileBlocks
		diags = gohcl.DecodeBody(file.Body, nil, &blocks)
		must.False(t, diags.HasErrors(), must.Sprint(diags))
		must.SliceNotEmpty(t, blocks.Variables)
		_, body, _ := strings.Cut(job.Source(), "\njob \"")
		for _, v := range blocks.Variables {
			_, diags := typeexpr.TypeConstraint(v.Type)
			test.False(t, diags.HasErrors(), test.Sprintf("%s: type of %s: %v", job.File(), v.Name, diags))
			test.True(t, strings.HasSuffix(v.Description, "."), test.Sprintf("%s: description of %s is no sentence", job.File(), v.Name))
			value, err := v.fallback()
			test.NoError(t, err)
			test.False(t, value.IsNull(), test.Sprintf("%s: %s has no default", job.File(), v.Name))
			test.StrContains(t, body, "var."+v.Name)
		}
	}
}

package driver

import (
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/plugin/agent"
)

// The schemas and the structs they decode into must agree: what a job writes goes the agent's whole way here.
func TestTaskConfigSchema_takesEveryOption(t *testing.T) {
	t.Parallel()
	d, _ := newTestDriver(t)
	encoded, err := agent.DecodeConfig(d.TaskConfigSchema(), `
		environment       = "team:3"
		image_pull_policy = "always"
		flow              = "triage@sha256:abc"
		max_concurrency   = 7
		workers           = 2
		ports             = ["http", "admin"]
		entrypoint        = ["/bin/sh", "-c"]
		command           = "serve"
		args              = ["--verbose"]
		work_dir          = "/srv"
		labels {
			team = "nlp"
		}
		readonly_rootfs   = true
		hostname          = "flow"
	`, nil)
	must.NoError(t, err)
	config, err := decodeTaskConfig(encoded)
	must.NoError(t, err)
	test.Eq(t, TaskConfig{
		Environment: "team:3", ImagePullPolicy: PullAlways, Flow: "triage@sha256:abc", MaxConcurrency: 7, Workers: 2,
		Ports: []string{"http", "admin"}, Entrypoint: []string{"/bin/sh", "-c"}, Command: "serve", Args: []string{"--verbose"},
		WorkDir: "/srv", Labels: map[string]string{"team": "nlp"}, ReadonlyRootfs: true, Hostname: "flow",
	}, config)

	encoded, err = agent.DecodeConfig(d.TaskConfigSchema(), ``, nil)
	must.NoError(t, err)
	config, err = decodeTaskConfig(encoded)
	must.NoError(t, err)
	test.Eq(t, TaskConfig{
		Environment: "default", ImagePullPolicy: PullIfNotPresent, MaxConcurrency: 32,
	}, config)
}

func TestConfigSchema_takesEveryOption(t *testing.T) {
	t.Parallel()
	d, _ := newTestDriver(t)
	decode := func(text string) PluginConfig {
		t.Helper()
		encoded, err := agent.DecodeConfig(d.ConfigSchema(), text, nil)
		must.NoError(t, err)
		config, err := decodePluginConfig(encoded)
		must.NoError(t, err)
		return config
	}
	want := defaultPluginConfig()
	must.NoError(t, want.validate())
	must.True(t, want == decode(``))
	must.True(t, want == decode(`containerd { }`))

	want = PluginConfig{
		Containerd:   ContainerdConfig{Address: "/a.sock", Namespace: "n", Snapshotter: "native", Runtime: "io.containerd.runsc.v1"},
		Environments: "/env", ImagePullTimeout: "90s", GCContainer: false,
	}
	must.NoError(t, want.validate())
	must.True(t, want == decode(`
		containerd {
			address     = "/a.sock"
			namespace   = "n"
			snapshotter = "native"
			runtime     = "io.containerd.runsc.v1"
		}
		environments       = "/env"
		image_pull_timeout = "90s"
		gc_container       = false
	`))
}

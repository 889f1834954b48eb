package driver_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// reports are the fingerprints of a stream that stays open until the test ends.
func (r *wireRig) reports() <-chan plugin.Fingerprint {
	r.t.Helper()
	reports := make(chan plugin.Fingerprint, 16)
	go func() { _ = r.plugin.Fingerprint(r.t.Context(), func(f plugin.Fingerprint) { reports <- f }) }()
	return reports
}

// nextReport is the next fingerprint, which must come in time.
func nextReport(t testing.TB, reports <-chan plugin.Fingerprint, want plugin.Health, within time.Duration) plugin.Fingerprint {
	t.Helper()
	select {
	case report := <-reports:
		must.Eq(t, want, report.Health, must.Sprint(report.Description))
		return report
	case <-time.After(within):
		t.Fatalf("no report within %s", within)
		return plugin.Fingerprint{}
	}
}

// A node without containerd has no driver. One that loses it is unhealthy within ten seconds and healthy again when it is back; the
// tasks do not notice.
func TestConformance_FingerprintHealth(t *testing.T) {
	r := newWireRig(t, `
		allow_privileged = true
		allow_runtimes   = ["runc", "runsc", "io.containerd.none.v1"]
		volumes {
		  enabled = true
		}`)
	r.daemon.Kill()
	reports := r.reports()
	nextReport(t, reports, plugin.Undetected, 5*time.Second)
	r.daemon.Start()
	healthy := nextReport(t, reports, plugin.Healthy, 10*time.Second)
	test.Eq(t, "Healthy", healthy.Description)
	for name, want := range map[string]any{
		"version":            "0.1.0",
		"snapshotter":        "overlayfs",
		"runtime":            "io.containerd.runc.v2",
		"runtimes":           "io.containerd.runc.v2",
		"privileged.enabled": true,
		"volumes.enabled":    true,
		"environment":        "default",
	} {
		test.Eq(t, want, healthy.Attributes["driver.promptflow."+name], test.Sprint(name))
	}
	version, err := r.client().Version(r.ctx())
	must.NoError(t, err)
	test.Eq(t, any(version.Version), healthy.Attributes["driver.promptflow.containerd.version"])
	test.MapContainsKey(t, healthy.Attributes, "driver.promptflow.cgroup")
	digest, _ := healthy.Attributes["driver.promptflow.environment.digest"].(string)
	test.StrHasPrefix(t, "sha256:", digest)

	task := r.shell("echo ready; sleep 1000")
	r.start(task)
	task.awaitLog(t, "ready")
	pid := r.process(task)
	r.daemon.Kill()
	lost := nextReport(t, reports, plugin.Unhealthy, 10*time.Second)
	test.Eq(t, "containerd at "+r.daemon.Address+" does not answer", lost.Description)
	test.Error(t, lost.Err)
	test.Eq(t, "", lost.Attributes["driver.promptflow.runtimes"])
	r.daemon.Start()
	nextReport(t, reports, plugin.Healthy, 10*time.Second)
	r.daemon.Pause()
	nextReport(t, reports, plugin.Unhealthy, 10*time.Second)
	r.daemon.Resume()
	nextReport(t, reports, plugin.Healthy, 10*time.Second)
	test.Eq(t, pid, r.process(task), test.Sprint("the task does not notice"))
	r.destroy(task)
	r.requireNothingLeft()
}

// The agent's log collector gets what a task prints, and goes on getting it while the plugin is another.
func TestConformance_logNomadDefault(t *testing.T) {
	r := newWireRig(t, "")
	task := r.shell("echo to stdout; echo to stderr >&2; while [ ! -e /local/go ]; do sleep 0.02; done; echo after; exec sleep 1000")
	r.start(task)
	for _, want := range []string{"to stdout\n", "to stderr\n"} {
		task.awaitLog(t, want)
	}
	must.NoError(t, r.plugin.Kill())
	must.NoError(t, os.WriteFile(filepath.Join(task.alloc.TaskDir(), "local/go"), nil, 0o644))
	task.awaitLog(t, "after\n")
	r.launch()
	must.NoError(t, r.plugin.RecoverTask(t.Context(), task.restored()))
	r.destroy(task)
}

// Without log collection the agent makes no pipes, though it names them.
func TestConformance_LogCollectionDisabled(t *testing.T) {
	r := newWireRig(t, "disable_log_collection = true")
	capabilities, err := r.plugin.Capabilities(t.Context())
	must.NoError(t, err)
	test.True(t, capabilities.DisableLogCollection)
	task := r.shell("echo to nobody; exit 2")
	must.NoError(t, task.alloc.Logs().Close())
	for _, pipe := range []string{task.StdoutPath, task.StderrPath} {
		must.NoError(t, os.Remove(pipe))
	}
	r.start(task)
	test.Eq(t, 2, r.wait(task).ExitCode)
	r.destroy(task)
	test.FileNotExists(t, task.StdoutPath)
}

func TestConformance_Labels(t *testing.T) {
	r := newWireRig(t, "")
	task := r.newTask(`
		args = ["sleep 1000"]
		labels = {
		  team        = "nlp"
		  "dot.ted/x" = "y"
		}`)
	r.start(task)
	labels, err := r.inspectContainer(task).Labels(r.ctx())
	must.NoError(t, err)
	test.Eq(t, "nlp", labels["team"])
	test.Eq(t, "y", labels["dot.ted/x"])
	test.Eq(t, task.AllocID, labels["com.hashicorp.nomad.alloc_id"])
	r.destroy(task)
}

func TestConformance_ExtraLabels(t *testing.T) {
	r := newWireRig(t, `extra_labels = ["task*", "namespace", "node_id"]`)
	task := r.shell("sleep 1000")
	r.start(task)
	labels, err := r.inspectContainer(task).Labels(r.ctx())
	must.NoError(t, err)
	got := map[string]string{}
	for name, value := range labels {
		if short, ok := strings.CutPrefix(name, "com.hashicorp.nomad."); ok {
			got[short] = value
		}
	}
	test.Eq(t, map[string]string{
		"alloc_id": task.AllocID, "task_id": task.ID, "task_name": "web", "task_group_name": "group", "namespace": "default", "node_id": r.node,
	}, got)
	r.destroy(task)
}

// Two agents of one machine share containerd and its namespace, each with a node of its own. Neither sees the other's tasks.
func TestTwoAgentsOnOneMachine(t *testing.T) {
	t.Parallel()
	first := newWireRig(t, eager(""))
	first.fingerprint()
	mine := first.shell("echo ready; sleep 1000")
	first.start(mine)

	second := *first
	second.node = randomName(t)
	second.launch()
	second.fingerprint()
	theirs := second.shell("echo ready; sleep 1000")
	second.start(theirs)
	dangling := second.abandon(second.shell("sleep 1000"))
	second.nextPlugin()
	// The second agent's plugin knows nothing of its first task either now, which was abandoned with the other.
	eventually(t, "the second agent's container is removed", func() bool { return first.gone(dangling) })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := first.plugin.WaitTask(ctx, mine.ID)
	test.ErrorIs(t, err, context.DeadlineExceeded, test.Sprint("the first agent's task runs on"))
	first.destroy(mine)
}

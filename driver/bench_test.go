package driver_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/environment"
)

// startGoal is how much longer than the bare client the driver may take.
const startGoal = 1.25

// BenchmarkStartTask measures the start of a task from a warm image, and in the same run, turn by turn, what containerd's
// bare client needs to create and start a container with the same image, mounts, limits and seccomp profile.
func BenchmarkStartTask(b *testing.B) {
	r := newRig(b)
	warm := r.shell("true")
	r.start(warm)
	r.wait(warm)
	r.destroy(warm)
	bare := newBareClient(r)

	var ours, theirs []time.Duration
	for b.Loop() {
		task := r.shell("sleep 1000")
		began := time.Now()
		r.start(task)
		ours = append(ours, time.Since(began))
		r.destroy(task)
		theirs = append(theirs, bare.start(b, r.shell("sleep 1000")))
	}
	us, them := median(ours), median(theirs)
	b.ReportMetric(milliseconds(us), "driver-ms")
	b.ReportMetric(milliseconds(them), "bare-ms")
	b.ReportMetric(float64(us)/float64(them), "ratio")
	record(b, compared("driver: task start to process running, warm image", "ms", milliseconds(us),
		"bare containerd client, same create and start", milliseconds(them), startGoal))
}

func median(samples []time.Duration) time.Duration {
	slices.Sort(samples)
	return samples[len(samples)/2]
}

// bareClient is containerd's client as one would use it by hand.
type bareClient struct {
	client *containerd.Client
	image  containerd.Image
}

func newBareClient(r *rig) *bareClient {
	r.t.Helper()
	ctx := namespaces.WithNamespace(r.t.Context(), "nomad")
	client := r.client()
	name, err := environment.ImageName("default")
	must.NoError(r.t, err)
	image, err := client.GetImage(ctx, name)
	must.NoError(r.t, err)
	return &bareClient{client: client, image: image}
}

func (c *bareClient) start(b *testing.B, like *testTask) time.Duration {
	b.Helper()
	ctx := namespaces.WithNamespace(b.Context(), "nomad")
	id := "bare-" + randomName(b)
	began := time.Now()
	container, err := c.client.NewContainer(ctx, id,
		containerd.WithSnapshotter("overlayfs"),
		containerd.WithNewSnapshot(id, c.image),
		containerd.WithNewSpec(
			oci.WithImageConfigArgs(c.image, []string{"sleep 1000"}),
			oci.WithHostNamespace(specs.NetworkNamespace),
			oci.WithMounts(bareMounts(like)), oci.WithMemoryLimit(64<<20), oci.WithCPUShares(100),
			oci.WithCgroup("/nomad-promptflow/"+id), seccomp.WithDefaultProfile(),
		),
	)
	must.NoError(b, err)
	task, err := container.NewTask(ctx, func(string) (cio.IO, error) {
		return bareIO{cio.Config{Stdout: like.StdoutPath, Stderr: like.StderrPath}}, nil
	})
	must.NoError(b, err)
	must.NoError(b, task.Start(ctx))
	took := time.Since(began)
	_, err = task.Delete(ctx, containerd.WithProcessKill)
	must.NoError(b, err)
	must.NoError(b, container.Delete(ctx, containerd.WithSnapshotCleanup))
	return took
}

// bareMounts are the folders that a task has, and the cgroup file system, which the client leaves out by itself.
func bareMounts(like *testTask) []specs.Mount {
	bind := func(source, target, access string) specs.Mount {
		return specs.Mount{Source: source, Destination: target, Type: "bind", Options: []string{"rbind", "rprivate", access}}
	}
	return []specs.Mount{
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		bind(filepath.Join(like.AllocDir, "alloc"), "/alloc", "rw"),
		bind(filepath.Join(like.AllocDir, "web/local"), "/local", "rw"),
		bind(filepath.Join(like.AllocDir, "web/secrets"), "/secrets", "rw"),
		bind(filepath.Join(like.AllocDir, "alloc/logs"), "/alloc/logs", "ro"),
		bind("/etc/resolv.conf", "/etc/resolv.conf", "rw"),
		bind("/etc/hosts", "/etc/hosts", "rw"),
		bind("/etc/hostname", "/etc/hostname", "rw"),
	}
}

type bareIO struct{ config cio.Config }

func (i bareIO) Config() cio.Config { return i.config }
func (bareIO) Cancel()              {}
func (bareIO) Wait()                {}
func (bareIO) Close() error         { return nil }

// figure is a row of the table that `make bench` prints. Theirs and ratio are for rows that compare with something.
type figure struct {
	Row     string  `json:"row"`
	Unit    string  `json:"unit"`
	Ours    float64 `json:"ours"`
	Against string  `json:"against"`
	Theirs  float64 `json:"theirs"`
	Ratio   float64 `json:"ratio"`
	Goal    float64 `json:"goal"`
	Met     bool    `json:"met"`
}

// compared is a figure whose goal is a ratio.
func compared(row, unit string, ours float64, against string, theirs, goal float64) figure {
	ratio := ours / theirs
	return figure{Row: row, Unit: unit, Ours: ours, Against: against, Theirs: theirs, Ratio: ratio, Goal: goal, Met: ratio <= goal}
}

// limited is a figure whose goal is a number of its own unit.
func limited(row, unit string, ours, goal float64) figure {
	return figure{Row: row, Unit: unit, Ours: ours, Goal: goal, Met: ours <= goal}
}

// figures are those of this run so far.
var figures []figure

// record adds to the figures that `make bench` prints.
func record(b *testing.B, added figure) {
	b.Helper()
	b.Logf("%s: %.2f %s, against %q %.2f, ratio %.2f, goal %.2f, met %t",
		added.Row, added.Ours, added.Unit, added.Against, added.Theirs, added.Ratio, added.Goal, added.Met)
	figures = append(figures, added)
	dir := filepath.Join(harness.Root(b), ".build", "bench")
	must.NoError(b, os.MkdirAll(dir, 0o755))
	content, err := json.MarshalIndent(figures, "", "  ")
	must.NoError(b, err)
	must.NoError(b, os.WriteFile(filepath.Join(dir, "driver.json"), append(content, '\n'), 0o644))
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

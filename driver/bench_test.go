package driver_test

import (
	"context"
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
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
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
	bare := newBareClient(b, r.client())

	var ours, theirs []time.Duration
	for b.Loop() {
		task := r.shell("exec sleep 100000")
		began := time.Now()
		r.start(task)
		ours = append(ours, time.Since(began))
		r.destroy(task)

		like := r.shell("exec sleep 100000")
		began = time.Now()
		container, err := bare.start(nomadNamespace(b), like.TaskConfig)
		theirs = append(theirs, time.Since(began))
		must.NoError(b, err)
		must.NoError(b, container.remove(nomadNamespace(b)))
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

func newBareClient(b *testing.B, client *containerd.Client) *bareClient {
	b.Helper()
	name, err := environment.ImageName("default")
	must.NoError(b, err)
	image, err := client.GetImage(nomadNamespace(b), name)
	must.NoError(b, err)
	return &bareClient{client: client, image: image}
}

func nomadNamespace(b *testing.B) context.Context {
	return namespaces.WithNamespace(b.Context(), "nomad")
}

// start creates and starts a container like the driver's of that task.
func (c *bareClient) start(ctx context.Context, like *plugin.TaskConfig) (*bareContainer, error) {
	id := "bare-" + filepath.Base(like.ID)
	container, err := c.client.NewContainer(ctx, id,
		containerd.WithSnapshotter("overlayfs"),
		containerd.WithNewSnapshot(id, c.image),
		containerd.WithNewSpec(
			oci.WithImageConfigArgs(c.image, []string{"exec sleep 100000"}),
			oci.WithHostNamespace(specs.NetworkNamespace),
			oci.WithMounts(bareMounts(like)), oci.WithMemoryLimit(64<<20), oci.WithCPUShares(100),
			oci.WithCgroup("/nomad-promptflow/"+id), seccomp.WithDefaultProfile(),
		),
	)
	if err != nil {
		return nil, err
	}
	task, err := container.NewTask(ctx, func(string) (cio.IO, error) {
		return bareIO{cio.Config{Stdout: like.StdoutPath, Stderr: like.StderrPath}}, nil
	})
	if err != nil {
		return nil, err
	}
	return &bareContainer{container: container, task: task}, task.Start(ctx)
}

type bareContainer struct {
	container containerd.Container
	task      containerd.Task
}

func (c *bareContainer) remove(ctx context.Context) error {
	if _, err := c.task.Delete(ctx, containerd.WithProcessKill); err != nil {
		return err
	}
	return c.container.Delete(ctx, containerd.WithSnapshotCleanup)
}

// bareMounts are the folders that a task has, and the cgroup file system, which the client leaves out by itself.
func bareMounts(like *plugin.TaskConfig) []specs.Mount {
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

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
)

// soon is how long a test waits for what should happen at once, and patience for what Nomad itself takes its time for.
const (
	soon     = 30 * time.Second
	patience = 90 * time.Second
)

// cluster is a Nomad cluster whose node has the driver, with an environment made of busybox.
type cluster struct {
	*harness.Nomad
	containerd *harness.ContainerdDaemon
	client     *containerd.Client
}

// startCluster starts a cluster, or skips the test where there is no nomad binary. What clientConfig says is merged into the client's
// configuration.
func startCluster(t *testing.T, clientConfig ...string) *cluster {
	t.Helper()
	harness.Integration(t)
	bin := harness.NomadBinary()
	if bin == "" {
		t.Skip("no nomad binary: put one on PATH or name it with NOMAD_BIN; the driver's own tests play the agent")
	}
	daemon := harness.Containerd(t)
	environments := harness.BusyboxLayout(t, harness.BusyboxImage{Tag: "busybox:latest", Config: ocispec.ImageConfig{}})
	plugin := fmt.Sprintf("environments = %q\ncontainerd {\n  address = %q\n}\n", environments, daemon.Address)
	c := &cluster{
		Nomad:      harness.StartNomad(t, bin, harness.Binary(t), plugin, clientConfig...),
		containerd: daemon, client: daemon.Client("nomad"),
	}
	c.awaitDriver(t, patience)
	return c
}

// awaitDriver waits until tasks of the driver can be placed.
func (c *cluster) awaitDriver(t *testing.T, limit time.Duration) {
	t.Helper()
	harness.Eventually(t, limit, "driver healthy on the node", func() error { return driverHealth(c.Nomad) })
}

// node is the cluster's node that runs tasks.
type node struct {
	ID         string
	Attributes map[string]string
	Drivers    map[string]struct {
		Healthy           bool
		HealthDescription string
		UpdateTime        time.Time // of its health
	}
}

func nodeOf(n *harness.Nomad) (node, error) {
	var nodes []struct{ ID string }
	if err := n.Get("/v1/nodes", &nodes); err != nil {
		return node{}, err
	}
	if len(nodes) != 1 {
		return node{}, fmt.Errorf("the cluster has %d nodes", len(nodes))
	}
	var found node
	return found, n.Get("/v1/node/"+nodes[0].ID, &found)
}

// allocation is what the agent says of one.
type allocation struct {
	ID, PreviousAllocation      string
	ClientStatus, DesiredStatus string
	CreateIndex                 uint64
	TaskStates                  map[string]taskState
}

type taskState struct {
	State    string
	Failed   bool
	Restarts int
	Events   []taskEvent
}

type taskEvent struct {
	Type           string
	DisplayMessage string
	Time           int64 // in nanoseconds
	Details        map[string]string
}

// event is the last event of a type that the task had.
func (s taskState) event(kind string) (taskEvent, bool) {
	for _, e := range slices.Backward(s.Events) {
		if e.Type == kind {
			return e, true
		}
	}
	return taskEvent{}, false
}

// kinds are the types of the task's events, in order.
func (s taskState) kinds() []string {
	var kinds []string
	for _, e := range s.Events {
		kinds = append(kinds, e.Type)
	}
	return kinds
}

// describe tells for a failed test what happened to the tasks.
func (a allocation) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "allocation %s is %s", a.ID, a.ClientStatus)
	for name, task := range a.TaskStates {
		fmt.Fprintf(&b, "\n  task %s is %s", name, task.State)
		for _, e := range task.Events {
			fmt.Fprintf(&b, "\n    %s: %s", e.Type, e.DisplayMessage)
		}
	}
	return b.String()
}

// run runs a job of the folder jobs, and returns when its deployment is over. It has to succeed.
func (c *cluster) run(t *testing.T, file string, vars ...string) {
	t.Helper()
	out, err := c.Run(t, jobRun(file, vars)...)
	if err == nil {
		return
	}
	if all, err := c.allocations(file); err == nil {
		for _, a := range all {
			var checks any
			_ = c.Get("/v1/client/allocation/"+a.ID+"/checks", &checks)
			t.Logf("%s\nchecks: %v", a.describe(), checks)
		}
	}
	must.NoError(t, err, must.Sprint(out))
}

// submit hands in a job of the folder jobs, and does not wait for it.
func (c *cluster) submit(t *testing.T, file string, vars ...string) {
	t.Helper()
	c.must(t, slices.Insert(jobRun(file, vars), 2, "-detach")...)
}

func jobRun(file string, vars []string) []string {
	args := []string{"job", "run"}
	for _, v := range vars {
		args = append(args, "-var", v)
	}
	return append(args, filepath.Join("jobs", file+".nomad.hcl"))
}

// must runs a command of the nomad CLI that has to succeed, and returns what it printed.
func (c *cluster) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.Run(t, args...)
	must.NoError(t, err, must.Sprintf("nomad %s: %s", strings.Join(args, " "), out))
	return out
}

// stop stops a job and waits until nothing of it runs any more.
func (c *cluster) stop(t *testing.T, job string) {
	t.Helper()
	all, err := c.allocations(job)
	must.NoError(t, err)
	c.must(t, "job", "stop", job)
	for _, alloc := range all {
		harness.Eventually(t, patience, "the end of job "+job, func() error {
			now, err := c.allocation(alloc.ID)
			if err == nil && (now.ClientStatus == "running" || now.ClientStatus == "pending") {
				err = errors.New(now.describe())
			}
			return err
		})
	}
}

// allocations are those of a job, the oldest first.
func (c *cluster) allocations(job string) ([]allocation, error) {
	var stubs []struct {
		ID          string
		CreateIndex uint64
	}
	if err := c.Get("/v1/job/"+job+"/allocations", &stubs); err != nil {
		return nil, err
	}
	var all []allocation
	for _, stub := range stubs {
		a, err := c.allocation(stub.ID)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b allocation) int { return int(a.CreateIndex) - int(b.CreateIndex) })
	return all, nil
}

func (c *cluster) allocation(id string) (allocation, error) {
	var a allocation
	return a, c.Get("/v1/allocation/"+id, &a)
}

// await waits until the job's only allocation has the status, and returns it.
func (c *cluster) await(t *testing.T, job, status string) allocation {
	t.Helper()
	var found allocation
	harness.Eventually(t, patience, fmt.Sprintf("job %s %s", job, status), func() error {
		all, err := c.allocations(job)
		if err != nil {
			return err
		}
		if len(all) != 1 {
			return fmt.Errorf("it has %d allocations", len(all))
		}
		found = all[0]
		if found.ClientStatus != status {
			return errors.New(found.describe())
		}
		return nil
	})
	return found
}

// awaitExit waits until the task of the job's only allocation ended, and returns how, in the agent's words.
func (c *cluster) awaitExit(t *testing.T, job, status string) map[string]string {
	t.Helper()
	alloc := c.await(t, job, status)
	terminated, ok := alloc.TaskStates["main"].event("Terminated")
	must.True(t, ok, must.Sprint(alloc.describe()))
	return terminated.Details
}

// startPatient starts the task that waits to be told what to do, and returns its allocation.
func (c *cluster) startPatient(t *testing.T, job string) string {
	t.Helper()
	c.submit(t, "patient", "id="+job)
	alloc := c.await(t, job, "running").ID
	c.awaitLog(t, alloc, "stdout", "ready")
	return alloc
}

// exec runs a command in a task and returns what it printed and its exit code.
func (c *cluster) exec(t *testing.T, alloc, task string, command ...string) execResult {
	t.Helper()
	return c.execWith(t, "", alloc, task, command...)
}

type execResult struct {
	stdout, stderr string
	code           int
}

// execWith is exec with an input.
func (c *cluster) execWith(t *testing.T, stdin, alloc, task string, command ...string) execResult {
	t.Helper()
	args := append([]string{"alloc", "exec", fmt.Sprintf("-i=%t", stdin != ""), "-t=false", "-task", task, alloc}, command...)
	cmd := c.Command(t, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	_ = cmd.Run() // its exit code is the result
	return execResult{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

// tell writes a word into a file of the local folder of the task named main, which the patient task follows. It goes past the agent, which
// may be away.
func (c *cluster) tell(t *testing.T, alloc, file, word string) {
	t.Helper()
	local := filepath.Join(c.TaskDir(alloc, "main"), "local")
	fresh := filepath.Join(local, "."+file)
	must.NoError(t, os.WriteFile(fresh, []byte(word+"\n"), 0o644))
	must.NoError(t, os.Rename(fresh, filepath.Join(local, file)))
}

// told is what is in a file of the local folder of the task named main, nothing when there is none.
func (c *cluster) told(t *testing.T, alloc, file string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(c.TaskDir(alloc, "main"), "local", file))
	if !errors.Is(err, os.ErrNotExist) {
		must.NoError(t, err)
	}
	return string(content)
}

// logs are what a task printed on a stream.
func (c *cluster) logs(t *testing.T, alloc, task, stream string) (string, error) {
	t.Helper()
	out, err := c.Run(t, "alloc", "logs", fmt.Sprintf("-stderr=%t", stream == "stderr"), "-task", task, alloc)
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return out, nil
}

// awaitLog waits until the task named main has printed a text.
func (c *cluster) awaitLog(t *testing.T, alloc, stream, text string) {
	t.Helper()
	harness.Eventually(t, soon, fmt.Sprintf("%q in the task's %s", text, stream), func() error {
		out, err := c.logs(t, alloc, "main", stream)
		if err == nil && !strings.Contains(out, text) {
			err = fmt.Errorf("it is %q", out)
		}
		return err
	})
}

// containers are the containers of the driver by the allocation that they belong to.
func (c *cluster) containers(t *testing.T) map[string]containerd.Container {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	list, err := c.client.Containers(ctx)
	must.NoError(t, err)
	found := map[string]containerd.Container{}
	for _, container := range list {
		info, err := container.Info(ctx, containerd.WithoutRefreshedMetadata)
		must.NoError(t, err)
		found[info.Labels["com.hashicorp.nomad.alloc_id"]] = container
	}
	return found
}

func (c *cluster) hasContainer(t *testing.T, alloc string) bool {
	t.Helper()
	_, found := c.containers(t)[alloc]
	return found
}

// process is the pid of the first process of the allocation's container.
func (c *cluster) process(t *testing.T, alloc string) uint32 {
	t.Helper()
	container, ok := c.containers(t)[alloc]
	must.True(t, ok, must.Sprintf("no container of allocation %s", alloc))
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	task, err := container.Task(ctx, nil)
	must.NoError(t, err)
	return task.Pid()
}

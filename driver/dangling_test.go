package driver

import (
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"github.com/shoenig/test/wait"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

const testNode = "6f9fab40-0000-0000-0000-000000000001"

// newTestCollector is a collector of a driver whose agent has restored its tasks.
func newTestCollector(t *testing.T, remains ...Remains) (*collector, *Driver, *fakeEngine) {
	t.Helper()
	d, engine := newTestDriver(t)
	d.config.GC.DanglingContainers = DanglingConfig{Enabled: true, period: time.Minute, creationGrace: 5 * time.Minute}
	d.node.Store(new(testNode))
	engine.remains = remains
	c := newCollector(d)
	d.restored.Store(d.session.Load())
	return c, d, engine
}

// marked are remains that this node made an hour ago, with more labels.
func marked(id string, labels ...string) Remains {
	r := Remains{ID: id, Created: time.Now().Add(-time.Hour), Labels: map[string]string{labelNode: testNode}}
	for i := 0; i < len(labels); i += 2 {
		r.Labels[labels[i]] = labels[i+1]
	}
	return r
}

func removed(engine *fakeEngine) bool { return slices.Contains(engine.called(), "remove") }

// addTask gives the driver a task that the agent knows too.
func addTask(d *Driver, container string) *task {
	added, _ := d.tasks.add(newTask(&plugin.TaskConfig{ID: "t"}, taskState{ContainerID: container}))
	d.claim(added)
	return added
}

// The agent died before it had written down that the task had started. The one that follows does not know it.
func TestDangling_takesTasksThatOnlyTheDriverKnows(t *testing.T) {
	t.Parallel()
	_, d, engine := newTestCollector(t, marked("pf-1"))
	orphan := addTask(d, "pf-1")
	next := newCollector(d)
	now := time.Now()
	next.pass(t.Context(), now)
	next.pass(t.Context(), now.Add(6*time.Minute))
	must.False(t, removed(engine), must.Sprint("the next agent may still be taking its tasks back"))

	d.restored.Store(d.session.Load())
	orphan.waiters.Add(1)
	next.pass(t.Context(), now.Add(7*time.Minute))
	next.pass(t.Context(), now.Add(13*time.Minute))
	must.False(t, removed(engine), must.Sprint("somebody waits for it"))
	orphan.waiters.Add(-1)
	next.pass(t.Context(), now.Add(14*time.Minute))
	next.pass(t.Context(), now.Add(20*time.Minute))
	test.True(t, removed(engine))
	_, known := d.tasks.get("t")
	test.False(t, known)
}

func TestDangling_leavesTasksThatTheNextAgentNames(t *testing.T) {
	t.Parallel()
	_, d, engine := newTestCollector(t, marked("pf-1"))
	kept := addTask(d, "pf-1")
	state, err := kept.state.encode()
	must.NoError(t, err)
	next := newCollector(d)
	must.NoError(t, d.RecoverTask(t.Context(), &plugin.TaskHandle{
		Config: &plugin.TaskConfig{ID: "t", NodeID: testNode}, DriverState: state,
	}))
	d.restored.Store(d.session.Load())
	next.pass(t.Context(), time.Now())
	next.pass(t.Context(), time.Now().Add(6*time.Minute))
	test.False(t, removed(engine))
}

func TestDangling_goesAfterTheGrace(t *testing.T) {
	t.Parallel()
	c, _, engine := newTestCollector(t, marked("pf-1"))
	now := time.Now()
	for _, step := range []struct {
		after time.Duration
		gone  bool
	}{{0, false}, {time.Minute, false}, {4 * time.Minute, false}, {5 * time.Minute, true}} {
		c.pass(t.Context(), now.Add(step.after))
		test.Eq(t, step.gone, removed(engine), test.Sprint(step.after))
	}
}

func TestDangling_waitsForWhatIsYoung(t *testing.T) {
	t.Parallel()
	young := marked("pf-1")
	young.Created = time.Now().Add(4 * time.Minute)
	c, _, engine := newTestCollector(t, young)
	now := time.Now()
	c.pass(t.Context(), now)
	c.pass(t.Context(), now.Add(6*time.Minute))
	test.False(t, removed(engine))
	c.pass(t.Context(), now.Add(10*time.Minute))
	test.True(t, removed(engine))
}

// A container that a task takes back in between is not one that was unknown all the time.
func TestDangling_countsOnlyTimeWithoutATask(t *testing.T) {
	t.Parallel()
	c, d, engine := newTestCollector(t, marked("pf-1"))
	now := time.Now()
	c.pass(t.Context(), now)
	addTask(d, "pf-1")
	c.pass(t.Context(), now.Add(6*time.Minute))
	d.tasks.remove("t")
	c.pass(t.Context(), now.Add(7*time.Minute))
	test.False(t, removed(engine))
	c.pass(t.Context(), now.Add(12*time.Minute))
	test.True(t, removed(engine))
}

func TestDangling_leavesEverythingElse(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		remains Remains
		prepare func(*Driver)
	}{
		{"another node's", marked("pf-1", labelNode, "another"), nil},
		{"without a mark", Remains{ID: "pf-1", Labels: map[string]string{}}, nil},
		{"marked by a start without a node", marked("pf-1", labelNode, ""), nil},
		{"kept for a look", marked("pf-1", labelKept, "true"), func(d *Driver) { d.config.GC.Container = false }},
		{"kept for a while", marked("pf-1", labelRemoveAfter, time.Now().Add(time.Hour).Format(time.RFC3339)), nil},
		{"being started or destroyed", marked("pf-1"), func(d *Driver) {
			_, ok := d.locks.tryLock("pf-1")
			must.True(t, ok)
		}},
		{"node not known yet", marked("pf-1"), func(d *Driver) { d.node.Store(nil) }},
		{"agent may still have tasks to take back", marked("pf-1"), func(d *Driver) { d.restored.Store(0) }},
		{"switched off", marked("pf-1"), func(d *Driver) { d.config.GC.DanglingContainers.Enabled = false }},
		{"a task's", marked("pf-1"), func(d *Driver) {
			addTask(d, "pf-1")
		}},
	} {
		c, d, engine := newTestCollector(t, tc.remains)
		if tc.prepare != nil {
			tc.prepare(d)
		}
		for minutes := range 20 {
			c.pass(t.Context(), time.Now().Add(time.Duration(minutes)*time.Minute))
		}
		test.False(t, removed(engine), test.Sprint(tc.name))
	}
}

func TestDangling_keptContainersGoWhenNoMoreAreToBeKept(t *testing.T) {
	t.Parallel()
	c, _, engine := newTestCollector(t, marked("pf-1", labelKept, "true"))
	c.pass(t.Context(), time.Now())
	c.pass(t.Context(), time.Now().Add(6*time.Minute))
	test.True(t, removed(engine))
}

func TestDangling_stopsWithItsAgent(t *testing.T) {
	t.Parallel()
	c, _, engine := newTestCollector(t, marked("pf-1"))
	c.pass(t.Context(), time.Now())
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	c.pass(gone, time.Now().Add(6*time.Minute))
	test.False(t, removed(engine))
}

func TestDangling_takesTheDriversFilesAlong(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		dir  string // within a test's folder
		gone bool
	}{
		{"web/" + filesFolder + "/pf-1", true},
		{"web/local", false}, // a label is no reason to remove just anything
		{"web/" + filesFolder + "/pf-2", false},
	} {
		dir := filepath.Join(t.TempDir(), tc.dir)
		must.NoError(t, os.MkdirAll(dir, 0o755))
		state, err := taskState{ContainerID: "pf-1", FilesDir: dir}.encode()
		must.NoError(t, err)
		c, _, engine := newTestCollector(t, marked("pf-1", labelState, base64.StdEncoding.EncodeToString(state)))
		c.pass(t.Context(), time.Now())
		c.pass(t.Context(), time.Now().Add(6*time.Minute))
		must.True(t, removed(engine))
		_, err = os.Lstat(dir)
		test.Eq(t, tc.gone, os.IsNotExist(err), test.Sprint(tc.dir))
	}
}

func TestRemovals_resumedByTheNextPlugin(t *testing.T) {
	t.Parallel()
	over := marked("pf-1", labelNode, "another", labelRemoveAfter, time.Now().Add(-time.Second).Format(time.RFC3339))
	c, d, engine := newTestCollector(t, over)
	d.restored.Store(0)
	c.pass(t.Context(), time.Now())
	d.work.Wait()
	test.True(t, removed(engine), test.Sprint("whoever decided on it is gone, so anyone may"))
}

func TestDestroyTask_keepsTheContainerForAWhile(t *testing.T) {
	t.Parallel()
	d, engine := newTestDriver(t)
	d.config.GC.containerDelay = 20 * time.Millisecond
	must.NoError(t, d.DestroyTask(t.Context(), "t", true))
	called := engine.called()
	must.SliceLen(t, 3, called)
	test.Eq(t, []string{"inspect", "stop"}, called[:2])
	test.True(t, strings.HasPrefix(called[2], "relabel "+containerID("t")+" map["+labelRemoveAfter+":"), test.Sprint(called[2]))
	d.work.Wait()
	test.True(t, removed(engine))
}

func TestLeftovers_areTriedAgainEverMoreSeldom(t *testing.T) {
	t.Parallel()
	d, engine := newTestDriver(t)
	engine.fail["remove"] = ErrUnavailable
	must.ErrorIs(t, d.DestroyTask(t.Context(), "t", true), ErrUnavailable)
	must.True(t, d.leftovers.has(containerID("t")))
	d.sweep()
	d.work.Wait()
	test.True(t, d.leftovers.has(containerID("t")))
	test.MapEmpty(t, d.leftovers.due(time.Now()), test.Sprint("not at once"))
	test.MapLen(t, 1, d.leftovers.due(time.Now().Add(minSweepDelay)))
	for range 10 {
		d.leftovers.swept(true)
	}
	test.Eq(t, maxSweepDelay, d.leftovers.delay)
}

func TestLeftovers_aStartThatFailedHalfway(t *testing.T) {
	t.Parallel()
	d, engine := newTestDriver(t)
	d.config.GC.Image = false // its delay would be waited for below
	engine.fail["start"], engine.fail["remove"] = ErrUnavailable, ErrUnavailable
	task := newTestTask(t)
	_, err := d.StartTask(t.Context(), task)
	must.ErrorIs(t, err, ErrUnavailable)
	must.True(t, plugin.IsRecoverable(err))
	must.True(t, d.leftovers.has(containerID(task.ID)))

	delete(engine.fail, "remove")
	d.sweep()
	must.Wait(t, wait.InitialSuccess(wait.Timeout(5*time.Second), wait.Gap(time.Millisecond), wait.BoolFunc(func() bool {
		_, err := os.Lstat(filepath.Join(task.AllocDir, "web", filesFolder))
		return os.IsNotExist(err)
	})))
	test.False(t, d.leftovers.has(containerID(task.ID)))
}

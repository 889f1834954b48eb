package driver

import (
	"context"
	"sync/atomic"
	"time"
)

// collector finds what is left of tasks that nobody will ask for again: containers whose allocation the agent forgot, and what
// is left of starts that were cut off.
//
// Whose a container is, is said by the mark of the node that made it: other agents on the same machine have nodes of their own, and
// their containers are not touched, nor is anything in another namespace or without the mark.
//
// What is left and what is only not known yet look the same, so it waits. It works only while an agent listens to the
// fingerprint: a plugin that an agent launches to check its configuration, or one whose agent died and was replaced, removes
// nothing. It begins after the agent has started or waited for a task: an agent does that only after it has taken
// back all it had. And a container goes only after it was there, unknown, for the whole grace.
//
// A task that this plugin knows may be unknown to the agent, one that died before it had written down that the task had
// started: such a task is nobody's too. An agent waits for every task it has.
type collector struct {
	driver  *Driver
	session int64

	busy    atomic.Bool
	resumed bool                 // the removals that an earlier plugin had put off are scheduled
	passed  time.Time            // when it last looked
	unknown map[string]time.Time // since when a container is known to be nobody's
}

func newCollector(d *Driver) *collector { return &collector{driver: d, session: d.session.Add(1)} }

// claim notes that the agent has named a task.
func (d *Driver) claim(task *task) { task.session.Store(d.session.Load()) }

// restored says whether the agent has taken back all tasks it had.
func (c *collector) restored() bool { return c.driver.restored.Load() >= c.session }

// wanted says whether the agent has a task of which the driver knows.
func (c *collector) wanted(task *task) bool {
	return task.waiters.Load() > 0 || task.session.Load() >= c.session
}

// next looks, if it is time. It does not wait for what it begins; ctx is that of the fingerprint.
func (c *collector) next(ctx context.Context, now time.Time) {
	if !c.busy.CompareAndSwap(false, true) {
		return
	}
	c.driver.background(func() {
		defer c.busy.Store(false)
		c.pass(ctx, now)
	})
}

func (c *collector) pass(ctx context.Context, now time.Time) {
	engine, config, err := c.driver.current()
	if err != nil || !c.due(config.GC.DanglingContainers, now) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	found, err := engine.List(ctx, labelNode)
	if err != nil {
		c.driver.logger.Debug("cannot look for dangling containers", "error", err)
		return
	}
	c.resume(found)
	if !config.GC.DanglingContainers.Enabled || !c.restored() {
		return
	}
	c.passed = now
	c.collect(ctx, found, config, now)
}

// due says whether there is anything to look for.
func (c *collector) due(config DanglingConfig, now time.Time) bool {
	if !c.resumed {
		return true
	}
	return config.Enabled && c.restored() && (c.passed.IsZero() || now.Sub(c.passed) >= config.period)
}

// resume schedules the removals that an earlier plugin had put off. That plugin decided on them, so this needs no grace.
func (c *collector) resume(found []Remains) {
	if c.resumed {
		return
	}
	c.resumed = true
	for _, remains := range found {
		if at, set := removalTime(remains.Labels); set {
			c.driver.scheduleRemoval(remains.ID, residueOf(remains.ID, remains.Labels), at)
		}
	}
}

// collect removes what nobody knew for long enough.
func (c *collector) collect(ctx context.Context, found []Remains, config PluginConfig, now time.Time) {
	grace := config.GC.DanglingContainers.creationGrace
	unknown := map[string]time.Time{}
	for _, remains := range found {
		if !c.dangles(remains, config) {
			continue
		}
		since, ok := c.unknown[remains.ID]
		if !ok {
			since = now
		}
		unknown[remains.ID] = since
		if now.Sub(since) >= grace && now.Sub(remains.Created) >= grace {
			c.remove(ctx, remains)
		}
	}
	c.unknown = unknown
}

// dangles says whether a container is this node's and no task's.
func (c *collector) dangles(remains Remains, config PluginConfig) bool {
	node := c.driver.node.Load()
	if node == nil || remains.Labels[labelNode] != *node {
		return false
	}
	if _, putOff := removalTime(remains.Labels); putOff {
		return false
	}
	if remains.Labels[labelKept] != "" && !config.GC.Container {
		return false
	}
	if task := c.driver.tasks.ofContainer(remains.ID); task != nil && c.wanted(task) {
		return false
	}
	return !c.driver.leftovers.has(remains.ID)
}

// remove removes a container, unless a task of it is being started or destroyed right now.
func (c *collector) remove(ctx context.Context, remains Remains) {
	unlock, ok := c.driver.locks.tryLock(remains.ID)
	if !ok {
		return
	}
	defer unlock()
	task := c.driver.tasks.ofContainer(remains.ID)
	if ctx.Err() != nil || (task != nil && c.wanted(task)) {
		return
	}
	if task != nil {
		task.destroy()
		c.driver.tasks.remove(task.id)
	}
	removing, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	err := c.driver.removeWhole(removing, remains.ID, residueOf(remains.ID, remains.Labels))
	c.driver.logger.Warn("removed dangling container", "container_id", remains.ID, "task_id", remains.Labels[labelTaskID],
		"created", remains.Created, "error", err)
}

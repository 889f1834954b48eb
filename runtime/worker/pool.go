package worker

import "time"

// The pool's rules, apart from the processes they rule.
//
// A worker waits for many sleeping calls as cheaply as for one. Another one is worth its memory for two reasons: Python runs on one
// processor at a time, and a crash takes along what runs in the same process. So as long as there may be more workers, a session
// gets one of its own; where another has to import the flow's code anew, only when every worker has two sessions already.
const (
	growAtForked   = 1
	growAtImported = 2
	// patience is how long a session waits for a worker that is being forked before it shares one.
	patience = 100 * time.Millisecond
	// quarantine is how long a flow whose code has ended a worker gets a worker for every session.
	quarantine = 10 * time.Minute
	// quarantined is how many workers such a flow may have, if the manager does not allow more anyway.
	quarantined = 16
)

// load is what the choice looks at.
type load struct {
	sessions int
	usable   bool // alive and not given up
}

// pool is what the choice knows beside the workers.
type pool struct {
	starting int  // workers
	limit    int  // of workers
	growAt   int  // sessions of the least loaded worker at which another is started
	alone    bool // no worker may have two sessions
}

// choice is who gets the next session: the worker index, -1 for none of them; whether another worker should be started; and whether to
// wait for one, though there are others.
type choice struct {
	index int
	grow  bool
	wait  bool
}

// choose picks the least loaded worker.
func (p pool) choose(loads []load) choice {
	c := choice{index: -1}
	usable := 0
	for i, l := range loads {
		if !l.usable {
			continue
		}
		usable++
		if c.index < 0 || l.sessions < loads[c.index].sessions {
			c.index = i
		}
	}
	busy := c.index >= 0 && loads[c.index].sessions > 0
	if p.alone && busy {
		c.index = -1
	}
	wanted := c.index < 0 || loads[c.index].sessions >= p.growAt
	room := usable+p.starting < p.limit
	c.grow = wanted && room && p.starting == 0
	c.wait = c.index >= 0 && busy && p.growAt == growAtForked && (c.grow || p.starting > 0)
	return c
}

// surplus tells whether a worker may go: it has been idle for long enough, and it is not one of those to keep.
func surplus(idle, after time.Duration, usable, keep int) bool {
	return usable > keep && idle >= after
}

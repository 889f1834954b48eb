// Package choose picks the instance that takes a submission.
//
// A [Chooser] knows the instances of one runtime and, of each, how many submissions this gateway has in flight there and which flows
// it has answered before. An instance that is warm for the flow comes first while it has room; else the less loaded of two
// picked at random (of few, the least loaded). The time of a choice does not depend on the number of instances. Instances enforce their limits themselves, so
// what other gateways send is theirs to count; what is known here only makes the choice better.
package choose

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// tries bounds how many instances are looked at for each question.
	tries = 8
	// maxFlows bounds how many flows' warm instances are remembered.
	maxFlows = 4096
	// restAfterFailure is how long an instance that could not be reached is avoided; each failure doubles it up to maxRest.
	restAfterFailure = 250 * time.Millisecond
	maxRest          = 8 * time.Second
)

// Lane is one instance with its load as this gateway sees it.
type Lane struct {
	room     int64
	running  atomic.Int64
	failures atomic.Int64 // since it was last reached
	restsTil atomic.Int64 // unix nanoseconds
}

// Chooser chooses among the lanes of one runtime. It is safe for many goroutines.
type Chooser struct {
	lanes []*Lane

	mu   sync.RWMutex
	warm map[string][]int // flow -> positions in lanes
}

// New makes a chooser of instances that take this many submissions at once each.
func New(room []int) *Chooser {
	c := &Chooser{warm: map[string][]int{}}
	for _, n := range room {
		c.lanes = append(c.lanes, &Lane{room: int64(n)})
	}
	return c
}

// Pick chooses an instance for a submission of a flow ("" when it is not known) that none of the tried ones took, and counts it as
// in flight there until [Chooser.Done]. It returns -1 when all were tried.
func (c *Chooser) Pick(flow string, tried []int) int {
	now := time.Now().UnixNano()
	at := c.pickWarm(flow, tried, now)
	if at < 0 {
		at = c.pickCold(tried, now)
	}
	if at >= 0 {
		c.lanes[at].running.Add(1)
	}
	return at
}

// Done ends what Pick began.
func (c *Chooser) Done(at int) { c.lanes[at].running.Add(-1) }

// InFlight returns how many submissions are in flight at an instance.
func (c *Chooser) InFlight(at int) int { return int(c.lanes[at].running.Load()) }

// pickWarm returns the least loaded of some warm instances with room, or -1.
func (c *Chooser) pickWarm(flow string, tried []int, now int64) int {
	if flow == "" {
		return -1
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	warm := c.warm[flow]
	if len(warm) == 0 {
		return -1
	}
	best := -1
	start := rand.IntN(len(warm))
	for i := range min(tries, len(warm)) {
		at := warm[(start+i)%len(warm)]
		lane := c.lanes[at]
		if lane.rests(now) || lane.running.Load() >= lane.room || contains(tried, at) {
			continue
		}
		if best < 0 || lane.load() < c.lanes[best].load() {
			best = at
		}
	}
	return best
}

// pickCold returns the less loaded of two instances that do not rest, of few instances the least loaded; where nearly all rest, one
// that does is better than none.
func (c *Chooser) pickCold(tried []int, now int64) int {
	n := len(c.lanes)
	if n == 0 {
		return -1
	}
	enough := 2
	if n <= tries {
		enough = n
	}
	start := rand.IntN(n)
	best, resting, found := -1, -1, 0
	for i := 0; i < tries && i < n && found < enough; i++ {
		at := (start + i) % n
		if n > tries {
			at = rand.IntN(n)
		}
		switch {
		case at == best || contains(tried, at):
			continue
		case c.lanes[at].rests(now):
			resting = at
			continue
		case best < 0 || c.lanes[at].load() < c.lanes[best].load():
			best = at
		}
		found++
	}
	switch {
	case best >= 0:
		return best
	case resting >= 0:
		return resting
	default:
		return c.anyUntried(tried)
	}
}

// anyUntried is for the bad luck of having drawn tried instances only.
func (c *Chooser) anyUntried(tried []int) int {
	if len(tried) >= len(c.lanes) {
		return -1
	}
	start := rand.IntN(len(c.lanes))
	for i := range len(tried) + 1 {
		if at := (start + i) % len(c.lanes); !contains(tried, at) {
			return at
		}
	}
	return -1
}

// load compares lanes of different size: the share of an instance's room that is taken.
func (l *Lane) load() float64 { return float64(l.running.Load()) / float64(l.room) }

func (l *Lane) rests(now int64) bool {
	til := l.restsTil.Load()
	return til != 0 && til > now
}

// Failed says that an instance could not be reached: it is avoided for a while.
func (c *Chooser) Failed(at int) {
	lane := c.lanes[at]
	rest := min(restAfterFailure<<min(lane.failures.Add(1)-1, 10), maxRest)
	lane.restsTil.Store(time.Now().Add(rest).UnixNano())
}

// Reached says that an instance answered.
func (c *Chooser) Reached(at int) {
	lane := c.lanes[at]
	if lane.failures.Load() != 0 { // a load is shared by processors, a store is not
		lane.failures.Store(0)
		lane.restsTil.Store(0)
	}
}

// Warm says that an instance holds a flow.
func (c *Chooser) Warm(flow string, at int) {
	c.mu.RLock()
	known := contains(c.warm[flow], at)
	c.mu.RUnlock()
	if known || flow == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if contains(c.warm[flow], at) {
		return
	}
	if _, there := c.warm[flow]; !there && len(c.warm) >= maxFlows {
		for other := range c.warm { // any: to forget costs a better choice, nothing else
			delete(c.warm, other)
			break
		}
	}
	// A new slice: readers may hold the old one.
	c.warm[flow] = append(append([]int(nil), c.warm[flow]...), at)
}

// Cold says that an instance does not hold a flow.
func (c *Chooser) Cold(flow string, at int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var left []int
	for _, other := range c.warm[flow] {
		if other != at {
			left = append(left, other)
		}
	}
	if len(left) == 0 {
		delete(c.warm, flow)
		return
	}
	c.warm[flow] = left
}

func contains(list []int, at int) bool {
	for _, other := range list {
		if other == at {
			return true
		}
	}
	return false
}

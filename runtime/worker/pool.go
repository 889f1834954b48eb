package worker

import "time"

// The pool's rules, apart from the processes they rule.
//
// A worker waits for many sleeping calls as cheaply as for one, but runs Python on one processor at a time. So another worker
// is worth its memory, which is small but for what the flow imports, when every worker has growAt sessions already.
const growAt = 2

// load is what the choice looks at.
type load struct {
	sessions int
	usable   bool // alive and not given up
}

// choose returns the worker for the next session, the least loaded one, -1 when there is none; and whether another worker
// should be started, given how many are being started already and how many there may be.
func choose(loads []load, starting, limit int) (index int, grow bool) {
	index = -1
	usable := 0
	for i, l := range loads {
		if !l.usable {
			continue
		}
		usable++
		if index < 0 || l.sessions < loads[index].sessions {
			index = i
		}
	}
	switch {
	case usable+starting >= limit:
		return index, false
	case index < 0:
		return index, starting == 0
	default:
		return index, starting == 0 && loads[index].sessions >= growAt
	}
}

// surplus tells whether a worker may go: it has been idle for long enough and is not the last one.
func surplus(idle, after time.Duration, usable int) bool {
	return usable > 1 && idle >= after
}

package run

import (
	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Watcher is told of a run while it goes on. Its methods are called by many goroutines at once, and the run waits for them. Line is
// the number of the line, nil for the aggregation.
type Watcher interface {
	// Node is told when a node starts to run, when it has ended and when it is bypassed.
	Node(line *int, run api.NodeRunInfo)
	// Chunk is told each item of an output that streams, as soon as it is made; its error ends the line.
	Chunk(line *int, output string, item any) error
	// Line is told when a line of a batch has ended.
	Line(info api.FlowRunInfo, output *value.Dict)
}

func (s *stage) tell(info api.NodeRunInfo) {
	if s.watcher != nil {
		s.watcher.Node(s.number, info)
	}
}

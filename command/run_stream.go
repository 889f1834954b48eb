package command

import (
	"fmt"
	"io"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

// liveOutput prints a run's outputs while they are made. Outputs that stream at the same time take turns, each piece on a line of its own
// that begins with the output's name.
type liveOutput struct {
	out     io.Writer
	current string          // the output whose line is open; empty: none
	shown   map[string]bool // outputs of which something was shown; false: not in one piece
}

// see is told of the run's events.
func (l *liveOutput) see(e api.RunEvent) error {
	switch {
	case e.Chunk != nil:
		l.chunk(e.Chunk.Output, text(e.Chunk.Chunk))
	case e.Line != nil && e.Line.Error != nil:
		_, _ = fmt.Fprintf(l.out, "line %d %s: %s\n", e.Line.Line, e.Line.Status, cell(e.Line.Error.Message))
	case e.Line != nil:
		_, _ = fmt.Fprintf(l.out, "line %d %s: %s\n", e.Line.Line, e.Line.Status, cell(string(e.Line.Output)))
	}
	return nil
}

func (l *liveOutput) chunk(output, piece string) {
	if piece == "" {
		return
	}
	if l.current != output {
		l.end()
		if l.shown == nil {
			l.shown = map[string]bool{}
		}
		_, again := l.shown[output]
		l.shown[output] = !again
		l.current = output
		_, _ = fmt.Fprintf(l.out, "%s: ", output)
	}
	_, _ = fmt.Fprint(l.out, piece)
}

// end ends the line that is open.
func (l *liveOutput) end() {
	if l.current != "" {
		_, _ = fmt.Fprintln(l.out)
	}
	l.current = ""
}

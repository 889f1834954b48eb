package environment

import (
	"fmt"
	"strings"
	"time"
)

// reporter tells a build's progress, stage by stage.
type reporter struct {
	to      func(Event)
	stage   string
	last    string
	bytes   int64
	started time.Time
}

// begin starts a stage; starting the running one again does nothing.
func (r *reporter) begin(stage string) {
	if r.stage == stage {
		return
	}
	r.stage, r.started, r.bytes, r.last = stage, time.Now(), 0, ""
	r.send(Event{})
}

func (r *reporter) detail(text string) {
	r.last = text
	r.send(Event{Detail: text})
}

// written tells how many bytes of a layer there are.
func (r *reporter) written(bytes int64) {
	r.bytes = bytes
	r.send(Event{Detail: r.last})
}

// line tells what a line of a program's output means to a person, if anything.
func (r *reporter) line(line string) {
	if text := lineDetail(line); text != "" {
		r.detail(text)
	}
}

func (r *reporter) done(detail string, cached bool, bytes int64) {
	r.bytes = bytes
	r.send(Event{Detail: detail, Done: true, Cached: cached})
}

func (r *reporter) send(e Event) {
	if r.to == nil {
		return
	}
	e.Stage, e.Bytes, e.Elapsed = r.stage, r.bytes, time.Since(r.started)
	r.to(e)
}

// lineDetail picks from the output of mmdebstrap, pip and our scripts what tells how far they are.
func lineDetail(line string) string {
	line = strings.TrimSpace(line)
	if text, ok := strings.CutPrefix(line, "I: "); ok {
		return strings.TrimSuffix(text, "...")
	}
	if text, ok := strings.CutPrefix(line, "stage: "); ok {
		return text
	}
	if text, ok := strings.CutPrefix(line, "Collecting "); ok {
		name, _, _ := strings.Cut(text, "==")
		return "fetching " + name
	}
	if text, ok := strings.CutPrefix(line, "Installing collected packages: "); ok {
		return fmt.Sprintf("installing %d packages", strings.Count(text, ", ")+1)
	}
	return ""
}

func describeLayer(l *Layer) string {
	text := fmt.Sprintf("%s (%s packed)", megabytes(l.Uncompressed), megabytes(l.Size))
	if len(l.Packages) > 0 {
		text += fmt.Sprintf(", %d packages", len(l.Packages))
	}
	if l.Cached {
		text += ", made " + l.Made.Format(time.DateOnly)
	}
	return text
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

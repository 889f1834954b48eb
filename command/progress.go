package command

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress shows what is being done: on a terminal as one line that changes, elsewhere as a line per step.
type progress struct {
	out      io.Writer
	terminal bool
	started  time.Time

	lock  sync.Mutex
	shown int // characters of the line that is shown now
}

func newProgress(out io.Writer) *progress {
	file, ok := out.(*os.File)
	return &progress{out: out, terminal: ok && term.IsTerminal(int(file.Fd())), started: time.Now()}
}

// maxProgress is how much of a changing line is shown: a longer one would wrap, and not be overwritten.
const maxProgress = 76

// doing shows what goes on now; elsewhere than on a terminal it says nothing.
func (p *progress) doing(format string, args ...any) {
	if !p.terminal {
		return
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	line := []rune(p.stamp() + fmt.Sprintf(format, args...))
	if len(line) > maxProgress {
		line = append(line[:maxProgress-1], '…')
	}
	p.clear()
	_, _ = fmt.Fprint(p.out, string(line))
	p.shown = len(line)
}

// did prints a step that is done, for good.
func (p *progress) did(format string, args ...any) {
	p.lock.Lock()
	defer p.lock.Unlock()
	p.clear()
	_, _ = fmt.Fprintf(p.out, "%s%s\n", p.stamp(), fmt.Sprintf(format, args...))
}

// end takes the changing line away.
func (p *progress) end() {
	p.lock.Lock()
	defer p.lock.Unlock()
	p.clear()
}

func (p *progress) clear() {
	if p.shown > 0 {
		_, _ = fmt.Fprintf(p.out, "\r%s\r", strings.Repeat(" ", p.shown))
		p.shown = 0
	}
}

// stamp is the time since the beginning, so that people see what takes long.
func (p *progress) stamp() string { return fmt.Sprintf("%6.1fs  ", time.Since(p.started).Seconds()) }

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

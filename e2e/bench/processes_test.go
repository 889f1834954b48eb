package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoenig/test/must"
)

// process is a server with all its processes.
type process struct {
	cmd  *exec.Cmd
	done chan error
	log  string
}

// start starts a program in a process group of its own; what it prints goes to a file.
func start(b *testing.B, dir string, env []string, name string, args ...string) *process {
	b.Helper()
	log, err := os.Create(filepath.Join(b.TempDir(), "log"))
	must.NoError(b, err)
	defer log.Close()
	p := &process{cmd: exec.Command(name, args...), done: make(chan error, 1), log: log.Name()} //nolint:noctx // stop ends it
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = dir, env, log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must.NoError(b, p.cmd.Start())
	go func() { p.done <- p.cmd.Wait() }()
	b.Cleanup(p.stop)
	return p
}

// stop ends the server, first kindly, and whatever is left of its process group.
func (p *process) stop() {
	group := -p.cmd.Process.Pid
	_ = syscall.Kill(group, syscall.SIGTERM)
	select {
	case <-p.done: //nolint:errcheck // how it ended does not matter
	case <-time.After(15 * time.Second):
	}
	_ = syscall.Kill(group, syscall.SIGKILL)
}

// output is the end of what the server printed.
func (p *process) output() string {
	text, _ := os.ReadFile(p.log)
	return string(text[max(0, len(text)-4000):])
}

// waitFor waits until ready returns nil. It fails at once when the server has ended.
func (p *process) waitFor(b *testing.B, within time.Duration, ready func() error) {
	b.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return
		}
		select {
		case ended := <-p.done:
			p.done <- ended
			b.Fatalf("%s ended: %v\n%s", p.cmd.Path, ended, p.output())
		case <-deadline:
			b.Fatalf("%s is not ready after %s: %v\n%s", p.cmd.Path, within, err, p.output())
		case <-tick.C:
		}
	}
}

// memory returns the proportional set size of the server and all its descendants, in bytes: a page that n processes share counts
// 1/n for each.
func (p *process) memory() (int64, error) {
	parents, err := parentsOf()
	if err != nil {
		return 0, err
	}
	var sum int64
	for pid := range parents {
		if !descends(parents, pid, p.cmd.Process.Pid) {
			continue
		}
		pss, err := proportional(pid)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH) { // it may have just ended
			return 0, err
		}
		sum += pss
	}
	return sum, nil
}

func descends(parents map[int]int, pid, ancestor int) bool {
	for pid > 1 {
		if pid == ancestor {
			return true
		}
		pid = parents[pid]
	}
	return false
}

// parentsOf maps every process to its parent.
func parentsOf() (map[int]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	parents := map[int]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended
		}
		// pid (name) state ppid …; the name may hold anything
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) > 1 {
			parents[pid], _ = strconv.Atoi(string(fields[1]))
		}
	}
	return parents, nil
}

func proportional(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("no Pss of process %d", pid)
}

// peak measures the memory until the returned function is called, which returns the most there was.
func (p *process) peak(b *testing.B) func() int64 {
	b.Helper()
	stop, done := make(chan struct{}), make(chan int64)
	go func() {
		var most int64
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			if n, err := p.memory(); err == nil {
				most = max(most, n)
			}
			select {
			case <-stop:
				done <- most
				return
			case <-tick.C:
			}
		}
	}()
	return func() int64 { close(stop); return <-done }
}

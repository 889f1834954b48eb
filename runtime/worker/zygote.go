package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// zygote is the process that imported prompt flow and forks workers.
type zygote struct {
	*forker
	cmd     *exec.Cmd
	ready   readiness
	started time.Time
}

// forker is our side of a process that forks when it is asked to: the zygote, or the template of a flow. It is told through a
// datagram-like socket and says when a worker ended; a worker's own sockets are handed over as file descriptors, so nothing is ever
// reachable by a path.
type forker struct {
	control *net.UnixConn
	done    chan struct{} // closed when the process has ended
	readers sync.WaitGroup

	mu    sync.Mutex
	next  uint64
	forks map[uint64]chan forked          // fork in progress
	exits map[int]chan syscall.WaitStatus // living worker -> how it ended, once
}

func newForker(control *net.UnixConn, done chan struct{}) *forker {
	return &forker{control: control, done: done, forks: map[uint64]chan forked{}, exits: map[int]chan syscall.WaitStatus{}}
}

// readiness is the zygote's first message.
type readiness struct {
	Ready      bool   `json:"ready"`
	Python     string `json:"python"`
	Promptflow string `json:"promptflow"`
	Error      string `json:"error"` // what could not be imported, and why
	Missing    bool   `json:"missing"`
}

// event is what a zygote says later.
type event struct {
	Forked uint64 `json:"forked"`
	PID    int    `json:"pid"`
	Error  string `json:"error"`
	Exited int    `json:"exited"`
	Status uint32 `json:"status"` // as wait(2) gives it
}

// forked is a new worker. No pid: the fork failed. exit says how it ended, once, or is closed when nobody can know.
type forked struct {
	pid  int
	exit chan syscall.WaitStatus
}

// maxEvent bounds a message on the control socket.
const maxEvent = 64 << 10

func startZygote(ctx context.Context, config Config, dir string, tie *os.File) (*zygote, error) {
	ours, theirs, err := socketPair(syscall.SOCK_SEQPACKET)
	if err != nil {
		return nil, err
	}
	z := &zygote{forker: newForker(ours, make(chan struct{})), started: time.Now()}
	// Its life is the manager's, which ends it by closing the tie.
	z.cmd = exec.Command(config.Python, "-u", filepath.Join(dir, "nomad_promptflow_worker", "main.py")) //nolint:noctx // see above
	z.cmd.Env = config.Env
	z.cmd.Stdout, z.cmd.Stderr = config.Output, config.Output
	z.cmd.ExtraFiles = []*os.File{theirs, tie}              // descriptors 3 and 4
	z.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is ours to handle
	err = z.cmd.Start()
	_ = theirs.Close()
	if err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("%w: start %s: %w: install Python 3.9 or later, or name the interpreter", ErrUnavailable, config.Python, err)
	}
	go func() { // ends with the process; stop waits for done
		_ = z.cmd.Wait()
		close(z.done)
	}()
	if err := z.handshake(ctx, config); err != nil {
		z.stop()
		return nil, err
	}
	z.readers.Go(z.read)
	return z, nil
}

func (z *zygote) handshake(ctx context.Context, config Config) error {
	if deadline, ok := ctx.Deadline(); ok {
		_ = z.control.SetReadDeadline(deadline)
	}
	interrupt := context.AfterFunc(ctx, func() { _ = z.control.SetReadDeadline(time.Unix(1, 0)) })
	defer interrupt()
	buf := make([]byte, maxEvent)
	n, err := z.control.Read(buf)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: import prompt flow with %s: %w", ErrUnavailable, config.Python, ctx.Err())
	case err != nil || n == 0:
		return fmt.Errorf("%w: %s ended before it was ready: see its output above: check that it is Python 3.9 or later and starts",
			ErrUnavailable, config.Python)
	}
	if err := json.Unmarshal(buf[:n], &z.ready); err != nil {
		return fmt.Errorf("%w: read first message of %s: %w", ErrUnavailable, config.Python, err)
	}
	_ = z.control.SetReadDeadline(time.Time{})
	switch {
	case z.ready.Ready:
		return nil
	case z.ready.Missing:
		return fmt.Errorf("%w: %s cannot import prompt flow: %s: install it with: %s -m pip install promptflow-core promptflow-tools",
			ErrUnavailable, config.Python, z.ready.Error, config.Python)
	default:
		return fmt.Errorf("%w: %s fails to import prompt flow: %s: reinstall promptflow-core and its dependencies", ErrUnavailable,
			config.Python, z.ready.Error)
	}
}

func (z *forker) alive() bool {
	select {
	case <-z.done:
		return false
	default:
		return true
	}
}

// read takes the zygote's messages until its end.
func (z *forker) read() {
	buf := make([]byte, maxEvent)
	for {
		n, err := z.control.Read(buf)
		if err != nil || n == 0 {
			z.fail()
			return
		}
		var e event
		if json.NewDecoder(bytes.NewReader(buf[:n])).Decode(&e) != nil {
			continue
		}
		z.take(e)
	}
}

func (z *forker) take(e event) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if e.Exited != 0 {
		if exit := z.exits[e.Exited]; exit != nil {
			exit <- syscall.WaitStatus(e.Status)
			delete(z.exits, e.Exited)
		}
		return
	}
	if waiter := z.forks[e.Forked]; waiter != nil {
		w := forked{pid: e.PID, exit: make(chan syscall.WaitStatus, 1)}
		if w.pid > 0 {
			z.exits[w.pid] = w.exit
		}
		waiter <- w
		delete(z.forks, e.Forked)
	}
}

// fail lets everybody go who waits for a zygote that ended.
func (z *forker) fail() {
	z.mu.Lock()
	defer z.mu.Unlock()
	for id, waiter := range z.forks {
		waiter <- forked{}
		delete(z.forks, id)
	}
	for pid, exit := range z.exits {
		close(exit)
		delete(z.exits, pid)
	}
}

// fork forks a worker and returns it, not bound to a flow unless it was forked from one that is.
func (z *forker) fork(ctx context.Context, config Config) (*process, error) {
	ours, theirs, err := socketPair(syscall.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	forks, theirForks, err := socketPair(syscall.SOCK_SEQPACKET)
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	defer theirForks.Close()
	w, err := z.request(ctx, theirs, theirForks)
	if err != nil {
		_, _ = ours.Close(), forks.Close() // a worker that was forked after all sees the end of its socket and exits
		return nil, err
	}
	return newProcess(w, ours, forks, config), nil
}

func (z *forker) request(ctx context.Context, theirs, theirForks *os.File) (forked, error) {
	waiter := make(chan forked, 1)
	z.mu.Lock()
	z.next++
	id := z.next
	z.forks[id] = waiter
	z.mu.Unlock()
	message := fmt.Appendf(nil, `{"fork":%d}`, id)
	if _, _, err := z.control.WriteMsgUnix(message, syscall.UnixRights(int(theirs.Fd()), int(theirForks.Fd())), nil); err != nil {
		return forked{}, fmt.Errorf("ask zygote to fork: %w", err)
	}
	select {
	case w := <-waiter:
		if w.pid <= 0 {
			return forked{}, errors.New("fork worker: the process to fork from failed or has ended: check memory and process limits")
		}
		return w, nil
	case <-z.done:
		return forked{}, errors.New("fork worker: the process to fork from has ended")
	case <-ctx.Done():
		return forked{}, fmt.Errorf("fork worker: %w", ctx.Err())
	}
}

// stop ends the zygote and returns when it has ended: first by closing its socket, then hard.
func (z *zygote) stop() {
	_ = z.control.CloseWrite()
	timer := time.NewTimer(2 * time.Second)
	defer timer.Stop()
	select {
	case <-z.done:
	case <-timer.C:
		_ = z.cmd.Process.Kill()
		<-z.done
	}
	_ = z.control.Close()
	z.readers.Wait()
}

// socketPair returns a connected pair: our end, and the end for a child process. Both close on exec.
func socketPair(kind int) (*net.UnixConn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, kind|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "worker"), os.NewFile(uintptr(fds[1]), "worker-peer")
	conn, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		_ = theirs.Close()
		return nil, nil, fmt.Errorf("open socket pair: %w", err)
	}
	return conn.(*net.UnixConn), theirs, nil
}

// describe says how a process ended.
func describe(status syscall.WaitStatus) string {
	switch {
	case status.Signaled() && status.Signal() == syscall.SIGKILL:
		return "it was killed (SIGKILL), which the kernel does when memory runs out"
	case status.Signaled():
		return fmt.Sprintf("it ended by signal %d (%s), which native code can cause", int(status.Signal()), strings.ToLower(status.Signal().String()))
	default:
		return fmt.Sprintf("it exited with status %d", status.ExitStatus())
	}
}

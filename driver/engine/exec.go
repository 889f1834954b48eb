package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
)

const (
	// execSetupTimeout bounds the making and the start of a command.
	execSetupTimeout = 30 * time.Second
	// daemonPatience is how long a command goes on unwatched while the daemon is away. It comes back within seconds, or it takes
	// somebody to see to it.
	daemonPatience = time.Minute
	daemonRetry    = 200 * time.Millisecond
	// drainTimeout is how long the output of an ended command is waited for. What it left in the background may hold the
	// streams for ever. drainQuiet is how long a terminal is silent when nothing is on its way any more.
	drainTimeout = 2 * time.Second
	drainQuiet   = 200 * time.Millisecond
)

// Exec runs a command beside a container's process, as the same user in the same environment.
func (e *Engine) Exec(ctx context.Context, id string, request driver.ExecRequest) (exit driver.Exit, err error) {
	ctx = e.namespaced(ctx)
	setup, cancel := context.WithTimeout(ctx, execSetupTimeout)
	defer cancel()
	seen := &activity{}
	process, stdin, err := e.newExec(setup, id, request, seen)
	if err != nil {
		return driver.Exit{}, err
	}
	defer func() { err = errors.Join(err, e.removeExec(ctx, process, err != nil)) }()
	// The wait outlives ctx, whose end is answered by killing the command.
	waiting, cancel := context.WithCancel(e.namespaced(context.WithoutCancel(ctx)))
	defer cancel()
	err = process.Start(setup)
	if err != nil {
		stdin.belongsTo(waiting, nil)
		return driver.Exit{}, explainStart(err)
	}
	stdin.belongsTo(waiting, process)
	resizing := e.followSize(waiting, process, request)
	defer func() { cancel(); <-resizing }()
	status, err := awaitExec(ctx, waiting, process)
	if err != nil {
		return driver.Exit{}, err
	}
	drain(process, request.TTY, seen)
	return driver.Exit{Code: int(status.ExitCode()), At: status.ExitTime()}, nil
}

func (e *Engine) newExec(
	ctx context.Context, id string, request driver.ExecRequest, seen *activity,
) (containerd.Process, *execInput, error) {
	container, err := e.client.LoadContainer(ctx, id)
	if err != nil {
		return nil, nil, explain(err)
	}
	description, err := e.containerSpec(ctx, container)
	if err != nil {
		return nil, nil, err
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		return nil, nil, explain(err)
	}
	name, err := execID()
	if err != nil {
		return nil, nil, err
	}
	stdin := newExecInput(request)
	request.Stdout, request.Stderr = seen.writer(request.Stdout), seen.writer(request.Stderr)
	process, err := task.Exec(ctx, name, execProcess(description.Process, request), execIO(request, stdin))
	if err != nil {
		stdin.belongsTo(ctx, nil)
		return nil, nil, explain(err)
	}
	return process, stdin, nil
}

// execProcess is the container's own process with another command line.
func execProcess(own *specs.Process, request driver.ExecRequest) *specs.Process {
	process := *own
	process.Args = request.Command
	process.Terminal = request.TTY
	return &process
}

func execIO(request driver.ExecRequest, stdin *execInput) cio.Creator {
	var input io.Reader
	if request.Stdin != nil {
		input = stdin
	}
	options := []cio.Opt{cio.WithStreams(input, request.Stdout, request.Stderr), cio.WithFIFODir(pipesDir())}
	if request.TTY {
		options = append(options, cio.WithTerminal)
	}
	return cio.NewCreator(options...)
}

// execID is a name that no other command in the container has.
func execID() (string, error) {
	var raw [8]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", fmt.Errorf("make exec id: %w", err)
	}
	return "exec-" + hex.EncodeToString(raw[:]), nil
}

// awaitExec returns how the command ended, or kills it when ctx ends first.
func awaitExec(ctx, waiting context.Context, process containerd.Process) (containerd.ExitStatus, error) {
	ended := make(chan containerd.ExitStatus, 1)
	waiting, cancel := context.WithCancel(waiting)
	defer cancel()
	go func() { ended <- waitThroughRestarts(waiting, process) }()
	select {
	case status := <-ended:
		return status, explain(status.Error())
	case <-ctx.Done():
	}
	killing, cancel := context.WithTimeout(waiting, cleanupTimeout)
	defer cancel()
	cause := fmt.Errorf("command was killed: %w", ctx.Err())
	if err := process.Kill(killing, syscall.SIGKILL); err != nil {
		return containerd.ExitStatus{}, errors.Join(cause, ignoreAbsent(err))
	}
	select {
	case <-ended:
	case <-killing.Done():
	}
	return containerd.ExitStatus{}, cause
}

// waitThroughRestarts waits for the end of a process. A daemon that goes away takes neither the process nor its streams along,
// which are the shim's, so the wait is taken up again when it is back.
func waitThroughRestarts(ctx context.Context, process containerd.Process) (status containerd.ExitStatus) {
	err := throughRestarts(ctx, func() error {
		ended, err := process.Wait(ctx)
		if err != nil {
			return err
		}
		status = <-ended
		return status.Error()
	})
	if err != nil {
		return *containerd.NewExitStatus(containerd.UnknownExitStatus, time.Time{}, err)
	}
	return status
}

// throughRestarts calls again what failed because the daemon is away, within its patience.
func throughRestarts(ctx context.Context, call func() error) error {
	lost := time.Now()
	for {
		began := time.Now()
		err := call()
		if !errors.Is(explain(err), driver.ErrUnavailable) {
			return err
		}
		if began.Sub(lost) > daemonPatience || !pause(ctx, daemonRetry) {
			return err
		}
		if time.Since(began) > redialDelay {
			// The daemon was there in between.
			lost = time.Now()
		}
	}
}

// pause waits, and says whether ctx still goes on then.
func pause(ctx context.Context, delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// drain waits until all output of an ended command has been copied, within a bound. What the command left in the background may
// hold the streams open: with a terminal, of which the command was the leader, only what is on its way is waited for.
func drain(process containerd.Process, tty bool, seen *activity) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		process.IO().Wait()
	}()
	limit := time.NewTimer(drainTimeout)
	defer limit.Stop()
	look := time.NewTicker(drainQuiet / 4)
	defer look.Stop()
	ended := time.Now()
	for {
		select {
		case <-done:
			return
		case <-look.C:
			if !tty || time.Since(ended) < drainQuiet || seen.since() < drainQuiet {
				continue
			}
		case <-limit.C:
		}
		process.IO().Cancel()
		<-done
		return
	}
}

// activity knows when something was last written.
type activity struct{ last atomic.Int64 }

func (a *activity) since() time.Duration { return time.Since(time.Unix(0, a.last.Load())) }

// writer is w, watched.
func (a *activity) writer(w io.Writer) io.Writer {
	if w == nil {
		w = io.Discard
	}
	return watchedWriter{to: w, seen: a}
}

type watchedWriter struct {
	to   io.Writer
	seen *activity
}

func (w watchedWriter) Write(p []byte) (int, error) {
	w.seen.last.Store(time.Now().UnixNano())
	return w.to.Write(p)
}

// removeExec removes an ended command, and kills one that failed to start or to be waited for, which may run all the same.
func (e *Engine) removeExec(ctx context.Context, process containerd.Process, failed bool) error {
	ctx, cancel := e.cleanup(ctx)
	defer cancel()
	if failed {
		killExec(ctx, process)
	}
	_, err := process.Delete(ctx)
	if err := ignoreAbsent(err); err != nil {
		e.logger.Warn("cannot delete ended command", "exec_id", process.ID(), "error", err)
	}
	io := process.IO()
	io.Cancel()
	return io.Close()
}

func killExec(ctx context.Context, process containerd.Process) {
	ended, err := process.Wait(ctx)
	if err != nil || process.Kill(ctx, syscall.SIGKILL) != nil {
		return
	}
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// followSize passes the terminal's size on until ctx ends or no more sizes come. The returned channel is closed when it
// has stopped.
func (e *Engine) followSize(ctx context.Context, process containerd.Process, request driver.ExecRequest) <-chan struct{} {
	stopped := make(chan struct{})
	if !request.TTY || request.Resize == nil {
		close(stopped)
		return stopped
	}
	go func() {
		defer close(stopped)
		for {
			select {
			case <-ctx.Done():
				return
			case size, ok := <-request.Resize:
				if !ok {
					return
				}
				if err := process.Resize(ctx, uint32(size.Width), uint32(size.Height)); err != nil {
					e.logger.Debug("cannot resize terminal", "exec_id", process.ID(), "error", err)
				}
			}
		}
	}()
	return stopped
}

// endOfTransmission is what a terminal takes for the end of its input (Ctrl-D).
const endOfTransmission = 4

// execInput is a command's standard input. The shim keeps a plain input open until it is told to close it, so the end of the
// reader has to be passed on. A terminal must stay open instead, or the shim hangs it up and so kills the command: there
// the end is said as a person would.
type execInput struct {
	reader io.Reader
	tty    bool
	said   bool          // endOfTransmission was sent
	ready  chan struct{} // closed when ctx and process are set
	ctx    context.Context
	// process is nil when it never came to be.
	process containerd.Process
}

func newExecInput(request driver.ExecRequest) *execInput {
	return &execInput{reader: request.Stdin, tty: request.TTY, ready: make(chan struct{})}
}

// belongsTo says whose input it is, for as long as ctx lasts. It must be called once, however things go.
func (i *execInput) belongsTo(ctx context.Context, process containerd.Process) {
	i.ctx, i.process = ctx, process
	close(i.ready)
}

func (i *execInput) Read(p []byte) (int, error) {
	if i.said {
		<-i.ctx.Done()
		return 0, io.EOF
	}
	n, err := i.reader.Read(p)
	if err == nil || n > 0 {
		return n, nil
	}
	<-i.ready
	switch {
	case i.process == nil:
		return 0, err
	case i.tty:
		i.said = true
		p[0] = endOfTransmission
		return 1, nil
	}
	// The command may wait for this end for ever. It goes unsaid only when the command has ended or nobody waits for it.
	_ = throughRestarts(i.ctx, func() error { return i.process.CloseIO(i.ctx, containerd.WithStdinCloser) })
	return 0, err
}

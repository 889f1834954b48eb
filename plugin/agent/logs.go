package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"sync"
)

// Logs collects a task's outputs: from the pipes that the driver hands to the task into files that rotate. It holds the pipes
// open over restarts of the task.
type Logs struct {
	StdoutPath, StderrPath string // the pipes
	stdout, stderr         *collector
}

// collectLogs makes the pipes and starts reading them.
func collectLogs(dir, task string) (*Logs, error) {
	logs := &Logs{
		StdoutPath: filepath.Join(dir, "."+task+".stdout.fifo"),
		StderrPath: filepath.Join(dir, "."+task+".stderr.fifo"),
	}
	var err error
	if logs.stdout, err = collect(logs.StdoutPath, newRotated(filepath.Join(dir, task+".stdout"))); err != nil {
		return nil, err
	}
	if logs.stderr, err = collect(logs.StderrPath, newRotated(filepath.Join(dir, task+".stderr"))); err != nil {
		return nil, errors.Join(err, logs.stdout.close())
	}
	return logs, nil
}

// Tail returns at most the last size bytes of each output, stdout first.
func (l *Logs) Tail(size int64) (string, error) {
	var out bytes.Buffer
	for _, c := range []*collector{l.stdout, l.stderr} {
		if err := c.log.tail(&out, size); err != nil {
			return out.String(), err
		}
	}
	return out.String(), nil
}

// Follow copies both outputs, from the oldest that is kept, until ctx ends or the logs are closed and everything is copied. What
// rotated away before it could be copied is left out. Stdout and stderr may be the same writer: writes never overlap.
func (l *Logs) Follow(ctx context.Context, stdout, stderr io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var lock sync.Mutex
	var both sync.WaitGroup
	errs := make([]error, 2)
	follow := func(i int, log *rotated, to io.Writer) {
		if errs[i] = log.follow(ctx, &lockedWriter{lock: &lock, to: to}); errs[i] != nil {
			cancel()
		}
	}
	both.Go(func() { follow(0, l.stdout.log, stdout) })
	both.Go(func() { follow(1, l.stderr.log, stderr) })
	both.Wait()
	return errors.Join(errs...)
}

// Close takes what is left in the pipes and stops. It can be called again.
func (l *Logs) Close() error { return errors.Join(l.stdout.close(), l.stderr.close()) }

type lockedWriter struct {
	lock *sync.Mutex
	to   io.Writer
}

// Write implements io.Writer.
func (w *lockedWriter) Write(data []byte) (int, error) {
	w.lock.Lock()
	defer w.lock.Unlock()
	return w.to.Write(data)
}

package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// logFiles and logFileSize are an agent's defaults for a task's logs.
	logFiles    = 10
	logFileSize = 10 << 20
	// drainTime is how long the collector goes on reading what a task left in its pipe when it is closed.
	drainTime = 100 * time.Millisecond
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
	if logs.stdout, err = collect(logs.StdoutPath, filepath.Join(dir, task+".stdout")); err != nil {
		return nil, err
	}
	if logs.stderr, err = collect(logs.StderrPath, filepath.Join(dir, task+".stderr")); err != nil {
		return nil, errors.Join(err, logs.stdout.close())
	}
	return logs, nil
}

// Tail returns at most the last size bytes of both outputs, stdout first.
func (l *Logs) Tail(size int64) (string, error) {
	var out bytes.Buffer
	for _, c := range []*collector{l.stdout, l.stderr} {
		if err := c.tail(&out, size); err != nil {
			return out.String(), err
		}
	}
	return out.String(), nil
}

// Close reads what is left in the pipes and stops.
func (l *Logs) Close() error { return errors.Join(l.stdout.close(), l.stderr.close()) }

// collector copies one pipe into rotating files <base>.0, <base>.1, …
type collector struct {
	pipe *os.File
	base string
	done chan struct{}

	lock  sync.Mutex
	file  *os.File
	index int
	size  int64
	err   error
}

func collect(fifo, base string) (*collector, error) {
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		return nil, fmt.Errorf("make log pipe %s: %w", fifo, err)
	}
	// Open for both: the pipe then never ends while tasks come and go, and opening does not wait for a writer.
	pipe, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open log pipe: %w", err)
	}
	c := &collector{pipe: pipe, base: base, done: make(chan struct{})}
	if err := c.next(); err != nil {
		return nil, errors.Join(err, pipe.Close())
	}
	go c.run()
	return c, nil
}

func (c *collector) run() {
	defer close(c.done)
	buffer := make([]byte, 64<<10)
	for {
		n, err := c.pipe.Read(buffer)
		if n > 0 {
			c.write(buffer[:n])
		}
		if err != nil {
			return
		}
	}
}

func (c *collector) write(data []byte) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.size+int64(len(data)) > logFileSize {
		if err := c.next(); err != nil {
			c.err = err
			return
		}
	}
	n, err := c.file.Write(data)
	c.size += int64(n)
	if err != nil && c.err == nil {
		// The task goes on without its log; whoever closes the log is told.
		c.err = fmt.Errorf("write log: %w", err)
	}
}

// next goes on in a new file and removes the oldest one.
func (c *collector) next() error {
	if c.file != nil {
		_ = c.file.Close()
		c.index++
	}
	file, err := os.OpenFile(c.name(c.index), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("open log file: %w", err)
	}
	c.file, c.size = file, 0
	if old := c.index - logFiles; old >= 0 {
		if err := os.Remove(c.name(old)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove log file: %w", err)
		}
	}
	return nil
}

func (c *collector) name(index int) string { return fmt.Sprintf("%s.%d", c.base, index) }

func (c *collector) tail(to io.Writer, size int64) error {
	c.lock.Lock()
	defer c.lock.Unlock()
	file, err := os.Open(c.name(c.index))
	if err != nil {
		return fmt.Errorf("open log file: %w", err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Seek(max(0, c.size-size), io.SeekStart); err != nil {
		return fmt.Errorf("read log file: %w", err)
	}
	_, err = io.Copy(to, io.LimitReader(file, size))
	return err
}

func (c *collector) close() error {
	// The reader ends at the deadline; until then it takes what the task wrote before it ended.
	if err := c.pipe.SetReadDeadline(time.Now().Add(drainTime)); err != nil {
		_ = c.pipe.Close()
	}
	<-c.done
	c.lock.Lock()
	defer c.lock.Unlock()
	return errors.Join(c.err, ignoreClosed(c.pipe.Close()), c.file.Close())
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

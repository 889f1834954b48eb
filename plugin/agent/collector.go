package agent

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// drainLimit bounds what is taken out of a pipe at the end: more than a pipe can hold, so only a writer that is still there meets it.
const drainLimit = 1 << 20

// collector copies one pipe into a log.
type collector struct {
	pipe *os.File
	log  *rotated
	done chan struct{}

	closing sync.Once
	err     error
}

func collect(fifo string, log *rotated) (*collector, error) {
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		return nil, fmt.Errorf("make log pipe %s: %w", fifo, err)
	}
	// Open for both: the pipe then never ends while tasks come and go, and opening does not wait for a writer.
	pipe, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open log pipe: %w", err)
	}
	if err := log.open(); err != nil {
		return nil, errors.Join(err, pipe.Close())
	}
	c := &collector{pipe: pipe, log: log, done: make(chan struct{})}
	go c.run()
	return c, nil
}

func (c *collector) run() {
	defer close(c.done)
	buffer := make([]byte, 64<<10)
	for {
		n, err := c.pipe.Read(buffer)
		c.log.write(buffer[:n])
		if err != nil {
			return
		}
	}
}

func (c *collector) close() error {
	c.closing.Do(func() {
		c.err = c.stop()
	})
	return c.err
}

func (c *collector) stop() error {
	// A deadline in the past ends the reader whatever it is doing; what the task had written before is taken after.
	if err := c.pipe.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return errors.Join(fmt.Errorf("stop reading log pipe: %w", err), c.pipe.Close(), c.log.close())
	}
	<-c.done
	return errors.Join(c.drain(), c.pipe.Close(), c.log.close())
}

// drain takes what is in the pipe without waiting for more.
func (c *collector) drain() error {
	if err := c.pipe.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("drain log pipe: %w", err)
	}
	raw, err := c.pipe.SyscallConn()
	if err != nil {
		return fmt.Errorf("drain log pipe: %w", err)
	}
	buffer := make([]byte, 64<<10)
	return raw.Read(func(fd uintptr) bool {
		for taken := 0; taken < drainLimit; {
			n, err := unix.Read(int(fd), buffer)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || n <= 0 {
				break
			}
			c.log.write(buffer[:n])
			taken += n
		}
		return true
	})
}

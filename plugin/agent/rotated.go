package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

const (
	// logFiles and logFileSize are an agent's defaults for a task's logs.
	logFiles    = 10
	logFileSize = 10 << 20
)

// rotated is a log in files <base>.0, <base>.1, … of which the newest few are kept.
type rotated struct {
	base     string
	files    int
	fileSize int64

	lock    sync.Mutex
	file    *os.File
	index   int   // of the newest file
	size    int64 // of the newest file
	closed  bool
	changed chan struct{} // closed at the next change
	err     error         // the first that kept something out of the log
}

func newRotated(base string) *rotated {
	return &rotated{base: base, files: logFiles, fileSize: logFileSize, changed: make(chan struct{})}
}

func (r *rotated) name(index int) string { return fmt.Sprintf("%s.%d", r.base, index) }

func (r *rotated) open() error {
	file, err := os.OpenFile(r.name(r.index), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("open log file: %w", err)
	}
	r.file, r.size = file, 0
	return nil
}

// write never fails: a task goes on without its log, and whoever closes the log is told.
func (r *rotated) write(data []byte) {
	if len(data) == 0 {
		return
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	defer r.tell()
	if r.size > 0 && r.size+int64(len(data)) > r.fileSize {
		r.keep(r.rotate())
	}
	n, err := r.file.Write(data)
	r.size += int64(n)
	if err != nil {
		r.keep(fmt.Errorf("write log: %w", err))
	}
}

// rotate goes on in a new file and removes the oldest. When there can be no new file it stays with the one there is.
func (r *rotated) rotate() error {
	full := r.file
	r.index++
	if err := r.open(); err != nil {
		r.index--
		return err
	}
	err := full.Close()
	if oldest := r.index - r.files; oldest >= 0 {
		if rerr := os.Remove(r.name(oldest)); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove log file: %w", rerr))
		}
	}
	return err
}

func (r *rotated) keep(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *rotated) tell() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *rotated) close() error {
	r.lock.Lock()
	defer r.lock.Unlock()
	if r.closed {
		return r.err
	}
	r.closed = true
	r.tell()
	return errors.Join(r.err, r.file.Close())
}

// tail copies at most the last size bytes, from the newest file and where it is too short the one before.
func (r *rotated) tail(to io.Writer, size int64) error {
	r.lock.Lock()
	defer r.lock.Unlock()
	if older := size - r.size; older > 0 && r.index > 0 {
		if err := r.copyLast(to, r.index-1, older); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return r.copyLast(to, r.index, min(size, r.size))
}

func (r *rotated) copyLast(to io.Writer, index int, size int64) error {
	file, err := os.Open(r.name(index))
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	if _, err := file.Seek(max(0, info.Size()-size), io.SeekStart); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	if _, err := io.Copy(to, file); err != nil {
		return fmt.Errorf("copy log: %w", err)
	}
	return nil
}

// state is where the log is now, and what says that it went on.
func (r *rotated) state() (index int, closed bool, changed <-chan struct{}) {
	r.lock.Lock()
	defer r.lock.Unlock()
	return r.index, r.closed, r.changed
}

// follow copies everything that is kept and everything that comes, until ctx ends or the log is closed.
func (r *rotated) follow(ctx context.Context, to io.Writer) error {
	for index := 0; ; index++ {
		if newest, _, _ := r.state(); index <= newest-r.files {
			index = newest - r.files + 1
		}
		last, err := r.followFile(ctx, to, index)
		if err != nil || last {
			return err
		}
	}
}

// followFile copies one file until the next one is begun (false) or the end (true). A file that rotated away meanwhile is over.
func (r *rotated) followFile(ctx context.Context, to io.Writer, index int) (last bool, err error) {
	file, err := os.Open(r.name(index))
	if errors.Is(err, os.ErrNotExist) {
		newest, closed, _ := r.state()
		if index >= newest && !closed {
			return true, fmt.Errorf("follow log: %w", err)
		}
		return index >= newest, nil
	}
	if err != nil {
		return true, fmt.Errorf("follow log: %w", err)
	}
	defer func() { _ = file.Close() }()
	for {
		// Asked before the copy: what comes after the copy is then not missed.
		newest, closed, changed := r.state()
		if _, err := io.Copy(to, file); err != nil {
			return true, fmt.Errorf("follow log: %w", err)
		}
		if newest > index {
			return false, nil
		}
		if closed {
			return true, nil
		}
		select {
		case <-ctx.Done():
			return true, nil
		case <-changed:
		}
	}
}

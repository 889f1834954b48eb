package gateway

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// watchAfter is how long a request runs before its client is watched. Most have been answered by then, and cost nothing.
const watchAfter = 20 * time.Millisecond

// watch notices when the client at the other end of a connection goes away. Nobody may read the connection meanwhile.
type watch struct {
	conn  net.Conn
	gone  func()
	timer *time.Timer
	done  chan struct{}

	mu      sync.Mutex
	stopped bool
}

// watchClient calls gone, at most once, when the client closes the connection before stop is called.
func watchClient(conn net.Conn, gone func()) *watch {
	w := &watch{conn: conn, gone: gone, done: make(chan struct{})}
	w.timer = time.AfterFunc(watchAfter, w.run)
	return w
}

// stop ends the watch; the connection may be read again.
func (w *watch) stop() {
	if w.timer.Stop() {
		return
	}
	w.mu.Lock()
	w.stopped = true
	_ = w.conn.SetReadDeadline(time.Unix(1, 0)) // wakes the watcher
	w.mu.Unlock()
	<-w.done
	_ = w.conn.SetReadDeadline(time.Time{})
}

func (w *watch) run() {
	defer close(w.done)
	under, ok := w.conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := under.SyscallConn()
	if err != nil {
		return
	}
	w.mu.Lock()
	if w.stopped {
		w.mu.Unlock()
		return
	}
	_ = w.conn.SetReadDeadline(time.Time{}) // the one for reading the request
	w.mu.Unlock()
	gone := false
	err = raw.Read(func(fd uintptr) bool {
		state := peek(fd)
		gone = state == peerGone
		return state != peerQuiet // else wait until there is something to read
	})
	if err == nil && gone {
		w.gone()
	}
}

// What can be seen of the other end of a connection without reading from it.
type peerState int

const (
	peerQuiet peerState = iota // nothing to read
	peerSpoke                  // there is something to read
	peerGone                   // closed, or broken
)

func peek(fd uintptr) peerState {
	var one [1]byte
	for {
		n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return peerQuiet
		case err == nil && n > 0:
			return peerSpoke
		default:
			return peerGone
		}
	}
}

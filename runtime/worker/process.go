package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// process is one worker: requests go out in frames with an id, answers come back in any order.
type process struct {
	pid    int
	handle *os.Process // by pidfd where the kernel has it, so that a recycled pid is never signalled
	conn   *net.UnixConn
	forks  *net.UnixConn // where it can be asked to fork, once it is a template
	config Config
	exited chan struct{} // closed when status is known
	status syscall.WaitStatus
	dead   chan struct{} // closed when nothing more will be answered
	done   sync.WaitGroup

	write sync.Mutex // one frame at a time

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan answer // nil once it ended
	cause   string                 // why we ended it, or how it ended
	guilty  bool                   // the flow's code ended it, or made us end it

	// Owned by the pool of the flow (guarded by Flow.mu).
	sessions  int
	draining  bool
	idleSince time.Time
}

// answer is a decoded reply or the end of the worker.
type answer struct {
	reply *reply
	err   error
}

// reply is the head of an answer; parts hold its values.
type reply struct {
	ID       uint64       `json:"id"`
	Chunk    bool         `json:"chunk"` // an item of a stream; more answers follow
	Error    *api.Error   `json:"error"`
	Ref      *refReply    `json:"ref"`
	Media    []mediaAt    `json:"media"`
	Stdout   string       `json:"stdout"`
	Stderr   string       `json:"stderr"`
	Started  float64      `json:"started"`
	Duration float64      `json:"duration"`
	Parts    []partLength `json:"parts"`
	parts    map[string][]byte

	Forkable bool `json:"forkable"` // of a flow that was loaded

	// Of a line of a script.
	Primitive bool                 `json:"primitive"`
	Streams   map[string]*refReply `json:"streams"`
}

type refReply struct {
	ID     uint64 `json:"id"`
	Type   string `json:"type"`
	Repr   string `json:"repr"`
	Stream bool   `json:"stream"`
}

func (r *refReply) ref() *value.Ref {
	return &value.Ref{ID: r.ID, Type: r.Type, Repr: r.Repr, Stream: r.Stream}
}

// value returns the reply's value: plain data, or a reference.
func (r *reply) value() (any, error) {
	if r.Ref != nil {
		ref := r.Ref.ref()
		if record, ok := r.parts["record"]; ok {
			ref.Record = record
		}
		return ref, nil
	}
	data, ok := r.parts["value"]
	if !ok {
		return nil, nil
	}
	v, err := value.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("decode value of a worker: %w", err)
	}
	return placeMedia(v, r.Media, r.parts)
}

func newProcess(w forked, conn, forks *net.UnixConn, config Config) *process {
	p := &process{pid: w.pid, conn: conn, forks: forks, config: config, exited: make(chan struct{}), dead: make(chan struct{}), waiting: map[uint64]chan answer{}}
	p.handle, _ = os.FindProcess(w.pid) // never fails on Unix
	p.done.Go(p.read)
	p.done.Go(func() { p.watch(w.exit) })
	return p
}

// watch takes the zygote's word that the worker ended. Its socket alone does not tell: a child process that a tool forked may
// hold it open. What the worker wrote before is read to its end.
func (p *process) watch(exit <-chan syscall.WaitStatus) {
	select {
	case status, known := <-exit:
		if !known {
			return // the zygote ended first
		}
		p.status = status
		close(p.exited)
		_ = p.conn.SetReadDeadline(time.Now().Add(time.Second))
	case <-p.dead:
	}
}

func (p *process) alive() bool {
	select {
	case <-p.dead:
		return false
	default:
		return true
	}
}

// read takes answers until the worker's end, then fails whoever still waits.
func (p *process) read() {
	r := bufio.NewReaderSize(p.conn, 64<<10)
	var err error
	for err == nil {
		var f frame
		if f, err = readFrame(r, p.config.MaxFrame); err == nil {
			err = p.take(f)
		}
	}
	p.end(err)
}

func (p *process) take(f frame) error {
	r := &reply{}
	if err := json.Unmarshal(f.head, r); err != nil {
		return fmt.Errorf("%w: head: %w", errFrame, err)
	}
	var err error
	if r.parts, err = f.split(r.Parts); err != nil {
		return err
	}
	p.mu.Lock()
	waiter := p.waiting[r.ID]
	if !r.Chunk {
		delete(p.waiting, r.ID)
	}
	p.mu.Unlock()
	select {
	case waiter <- answer{reply: r}:
	default:
		if waiter != nil {
			return fmt.Errorf("%w: more answers than were asked for", errFrame)
		}
	}
	return nil
}

// end records why the worker ended and lets everybody go. It kills what is left of it, its own child processes included.
func (p *process) end(err error) {
	p.condemn(p.ending(err))
	_, _ = p.conn.Close(), p.forks.Close()
	p.mu.Lock()
	c := &crash{cause: p.cause, others: len(p.waiting) - 1}
	waiting := p.waiting
	p.waiting = nil
	p.mu.Unlock()
	close(p.dead)
	for _, waiter := range waiting {
		waiter <- answer{err: c} // there is room: see send
	}
}

// ending says how the worker ended, as far as can be known: the zygote's word follows the end of the socket.
func (p *process) ending(err error) string {
	wait, otherwise := 2*time.Second, "its connection broke"
	if errors.Is(err, errFrame) { // or it ended in the middle of a frame
		wait, otherwise = 200*time.Millisecond, "it broke the protocol: "+err.Error()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-p.exited:
		return describe(p.status)
	case <-timer.C:
		return otherwise
	}
}

// crash is the end of a worker under a request.
type crash struct {
	cause  string
	others int // other requests that it worked on
}

func (c *crash) Error() string { return "python worker ended: " + c.cause }

// request is one outstanding frame.
type request struct {
	id     uint64
	answer chan answer
}

// send sends a frame and returns the request to wait for. Answers are taken without waiting for their reader, so there is room for
// all that may come ahead of it: so many items of a stream, the last answer, and the end of the worker.
func (p *process) send(head map[string]any, items int, parts ...part) (request, error) {
	r := request{answer: make(chan answer, items+2)}
	p.mu.Lock()
	if p.waiting == nil {
		p.mu.Unlock()
		return r, p.crashed()
	}
	p.next++
	r.id = p.next
	p.waiting[r.id] = r.answer
	p.mu.Unlock()
	head["id"] = r.id
	if err := p.post(head, parts...); err != nil {
		p.forget(r.id)
		return r, err
	}
	return r, nil
}

// post sends a frame that has no answer.
func (p *process) post(head map[string]any, parts ...part) error {
	data, err := appendFrame(nil, head, parts...)
	if err != nil {
		return err
	}
	if len(data)-frameHeader > p.config.MaxFrame {
		return &tooLarge{size: len(data), limit: p.config.MaxFrame}
	}
	p.write.Lock()
	defer p.write.Unlock()
	// A worker always reads; one that does not for so long holds its interpreter lock in native code for good.
	_ = p.conn.SetWriteDeadline(time.Now().Add(time.Minute))
	if _, err := p.conn.Write(data); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p.kill("it took no more messages")
		}
		p.signal() // a frame cut in the middle cannot be mended; mostly the worker has ended already
		<-p.dead   // which end sees, in bounded time, and knows why
		return p.crashed()
	}
	return nil
}

// crashed is the error for what is asked of a worker that ended.
func (p *process) crashed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &crash{cause: p.cause}
}

// tooLarge says that a value does not fit a frame.
type tooLarge struct{ size, limit int }

func (t *tooLarge) Error() string {
	return fmt.Sprintf("values of %d bytes are too large for a Python worker, at most %d bytes: pass a file instead", t.size, t.limit)
}

// roundTrip sends and waits; a context that ends first asks the worker to cancel, and returns at once.
func (p *process) roundTrip(ctx context.Context, head map[string]any, parts ...part) (*reply, error) {
	r, err := p.send(head, 0, parts...)
	if err != nil {
		return nil, err
	}
	select {
	case a := <-r.answer:
		return a.reply, a.err
	case <-ctx.Done():
		return nil, &abandoned{request: r, cause: context.Cause(ctx)}
	}
}

// abandoned says that the caller stopped waiting while the worker still works on the request.
type abandoned struct {
	request request
	cause   error
}

func (a *abandoned) Error() string { return "wait for worker: " + a.cause.Error() }
func (a *abandoned) Unwrap() error { return a.cause }

func (p *process) forget(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, id)
}

// kill ends the worker at once, with the child processes it started. The first cause stays.
func (p *process) kill(cause string) {
	p.because(cause, false)
	p.signal()
}

// condemn is kill for what the flow's code did.
func (p *process) condemn(cause string) {
	p.because(cause, true)
	p.signal()
}

func (p *process) because(cause string, guilty bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cause == "" {
		p.cause, p.guilty = cause, guilty
	}
}

// fault tells whether the flow's code ended the worker.
func (p *process) fault() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.guilty
}

func (p *process) signal() {
	_ = p.handle.Kill()
	_ = syscall.Kill(-p.pid, syscall.SIGKILL) // its process group; absent when the worker left none behind
}

// stop ends the worker and returns when it has ended.
func (p *process) stop() {
	p.kill("its flow was closed")
	p.done.Wait()
	_ = p.handle.Release()
}

package plugin

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"

	"github.com/nomad-promptflow/nomad-promptflow/plugin/proto/drivers"
)

// ExecTaskStreaming speaks the framing of an exec: the client's first message is the setup, an empty one a heartbeat; the server
// closes each output, then says once that the command exited, and then ends the stream.
func (s *driverServer) ExecTaskStreaming(stream grpc.BidiStreamingServer[drivers.ExecTaskStreamingRequest, drivers.ExecTaskStreamingResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	setup := first.GetSetup()
	if setup == nil {
		return toStatus(errors.New("exec task: the first message must be the setup"))
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()

	var send sync.Mutex
	input, stdin := io.Pipe()
	resize := make(chan TerminalSize, 1)
	received := make(chan struct{})
	go func() {
		defer close(received)
		receiveExec(stream, stdin, resize)
	}()

	stdout := &execWriter{stream: stream, lock: &send, frame: func(op *drivers.ExecTaskStreamingIOOperation) *drivers.ExecTaskStreamingResponse {
		return &drivers.ExecTaskStreamingResponse{Stdout: op}
	}}
	stderr := &execWriter{stream: stream, lock: &send, frame: func(op *drivers.ExecTaskStreamingIOOperation) *drivers.ExecTaskStreamingResponse {
		return &drivers.ExecTaskStreamingResponse{Stderr: op}
	}}
	exit, err := s.driver.ExecTaskStreaming(ctx, setup.GetTaskId(), ExecOptions{
		Command: setup.GetCommand(),
		TTY:     setup.GetTty(),
		Stdin:   input,
		Stdout:  stdout,
		Stderr:  stderr,
		Resize:  resize,
	})
	// The command is over; input that still comes is dropped. The receiver itself ends when this method's return ends the stream.
	_ = input.CloseWithError(io.ErrClosedPipe)
	if exit, err = answered("exec task", exit, err); err != nil {
		return toStatus(err)
	}
	if err := errors.Join(stdout.Close(), stderr.Close()); err != nil {
		return err
	}
	return stdout.send(&drivers.ExecTaskStreamingResponse{Exited: true, Result: exitToWire(*exit)})
}

// receiveExec passes the client's input on until the client or the stream ends.
func receiveExec(stream grpc.BidiStreamingServer[drivers.ExecTaskStreamingRequest, drivers.ExecTaskStreamingResponse], stdin *io.PipeWriter, resize chan TerminalSize) {
	defer close(resize)
	for {
		message, err := stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			_ = stdin.CloseWithError(err)
			return
		}
		if size := message.GetTtySize(); size != nil {
			offer(resize, TerminalSize{Height: int(size.GetHeight()), Width: int(size.GetWidth())})
		}
		if data := message.GetStdin().GetData(); len(data) > 0 {
			// A command that does not read any more must not stop the receiver, which also sees the client leave.
			_, _ = stdin.Write(data)
		}
		if message.GetStdin().GetClose() {
			_ = stdin.Close()
		}
	}
}

// offer puts the newest size into the channel, in place of one that nobody took: only the last size counts.
func offer(resize chan TerminalSize, size TerminalSize) {
	for {
		select {
		case resize <- size:
			return
		default:
		}
		select {
		case <-resize:
		default:
		}
	}
}

// execWriter sends what is written as frames of one output. Both outputs share a lock: a stream has one sender.
type execWriter struct {
	stream grpc.BidiStreamingServer[drivers.ExecTaskStreamingRequest, drivers.ExecTaskStreamingResponse]
	lock   *sync.Mutex
	frame  func(*drivers.ExecTaskStreamingIOOperation) *drivers.ExecTaskStreamingResponse
	closed bool
}

func (w *execWriter) send(message *drivers.ExecTaskStreamingResponse) error {
	w.lock.Lock()
	defer w.lock.Unlock()
	return w.stream.Send(message)
}

// Write implements io.Writer.
func (w *execWriter) Write(data []byte) (int, error) {
	if len(data) == 0 {
		return 0, nil
	}
	// gRPC may keep the message after Send has returned.
	own := append([]byte(nil), data...)
	if err := w.send(w.frame(&drivers.ExecTaskStreamingIOOperation{Data: own})); err != nil {
		return 0, err
	}
	return len(data), nil
}

// Close says once that this output has ended.
func (w *execWriter) Close() error {
	w.lock.Lock()
	defer w.lock.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	return w.stream.Send(w.frame(&drivers.ExecTaskStreamingIOOperation{Close: true}))
}

package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/nomad-promptflow/nomad-promptflow/plugin/proto/drivers"
)

// bound is how long a test waits for what must happen.
const bound = 20 * time.Second

// careless is a driver that answers nothing, and no error either.
type careless struct {
	Driver
	exec        func(ctx context.Context, opts ExecOptions) (*ExitResult, error)
	fingerprint func(ctx context.Context, send func(Fingerprint) error) error
	events      func(ctx context.Context, send func(TaskEvent) error) error
}

func (careless) StartTask(context.Context, *TaskConfig) (*StartedTask, error) { return nil, nil }
func (careless) RecoverTask(context.Context, *TaskHandle) error               { return nil }
func (careless) WaitTask(context.Context, string) (*ExitResult, error)        { return nil, nil }
func (careless) InspectTask(context.Context, string) (*TaskStatus, error)     { return nil, nil }
func (careless) ExecTask(context.Context, string, []string, time.Duration) (*ExecResult, error) {
	return nil, nil
}
func (c careless) ExecTaskStreaming(ctx context.Context, _ string, opts ExecOptions) (*ExitResult, error) {
	return c.exec(ctx, opts)
}
func (c careless) Fingerprint(ctx context.Context, send func(Fingerprint) error) error {
	return c.fingerprint(ctx, send)
}
func (c careless) TaskEvents(ctx context.Context, send func(TaskEvent) error) error {
	return c.events(ctx, send)
}

// dial serves the driver in this process and returns the bare client of the wire.
func dial(t *testing.T, driver Driver, log io.Writer) drivers.DriverClient {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	logger := hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Trace})
	drivers.RegisterDriverServer(server, &driverServer{driver: driver, logger: logger})
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///plugin", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	must.NoError(t, err)
	t.Cleanup(func() {
		must.NoError(t, conn.Close())
		server.Stop()
		must.NoError(t, <-served)
	})
	return drivers.NewDriverClient(conn)
}

func TestServer_makesMissingAnswersErrors(t *testing.T) {
	t.Parallel()
	client := dial(t, careless{exec: func(context.Context, ExecOptions) (*ExitResult, error) { return nil, nil }}, io.Discard)
	ctx := t.Context()
	task := &drivers.TaskConfig{Id: "t"}
	calls := map[string]func() error{
		"start":            func() error { _, err := client.StartTask(ctx, &drivers.StartTaskRequest{Task: task}); return err },
		"start of nothing": func() error { _, err := client.StartTask(ctx, &drivers.StartTaskRequest{}); return err },
		"recover nothing":  func() error { _, err := client.RecoverTask(ctx, &drivers.RecoverTaskRequest{}); return err },
		"recover no config": func() error {
			_, err := client.RecoverTask(ctx, &drivers.RecoverTaskRequest{Handle: &drivers.TaskHandle{Version: 1}})
			return err
		},
		"wait":    func() error { _, err := client.WaitTask(ctx, &drivers.WaitTaskRequest{}); return err },
		"inspect": func() error { _, err := client.InspectTask(ctx, &drivers.InspectTaskRequest{}); return err },
		"exec":    func() error { _, err := client.ExecTask(ctx, &drivers.ExecTaskRequest{}); return err },
		"streaming exec": func() error {
			stream, err := client.ExecTaskStreaming(ctx)
			must.NoError(t, err)
			must.NoError(t, stream.Send(setup("sh")))
			_, err = stream.Recv()
			return err
		},
	}
	for name, call := range calls {
		err := call()
		must.Error(t, err, must.Sprint(name))
		test.RegexMatch(t, regexp.MustCompile("the driver gave no answer|the agent sent no"), err.Error(), test.Sprint(name))
	}
	_, err := client.RecoverTask(ctx, &drivers.RecoverTaskRequest{Handle: &drivers.TaskHandle{Config: task}})
	must.NoError(t, err)
}

// An agent opens a stream that ends again at once and without end, so a stream that its driver gave up stays open.
func TestServer_holdsStreamsThatTheDriverEnded(t *testing.T) {
	t.Parallel()
	log := &syncBuffer{}
	client := dial(t, careless{
		fingerprint: func(_ context.Context, send func(Fingerprint) error) error { return send(Fingerprint{Health: Healthy}) },
		events:      func(context.Context, func(TaskEvent) error) error { return errors.New("event source broke") },
	}, log)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	fingerprints, err := client.Fingerprint(ctx, &drivers.FingerprintRequest{})
	must.NoError(t, err)
	_, err = fingerprints.Recv()
	must.NoError(t, err)
	events, err := client.TaskEvents(ctx, &drivers.TaskEventsRequest{})
	must.NoError(t, err)
	ended := make(chan error, 2)
	go func() { _, err := fingerprints.Recv(); ended <- err }()
	go func() { _, err := events.Recv(); ended <- err }()
	select {
	case err := <-ended:
		t.Fatalf("a stream ended before the agent ended it: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	cancel()
	test.ErrorIs(t, FromStatus(<-ended), context.Canceled)
	test.ErrorIs(t, FromStatus(<-ended), context.Canceled)
	test.StrContains(t, log.String(), "event source broke")
}

func setup(command ...string) *drivers.ExecTaskStreamingRequest {
	return &drivers.ExecTaskStreamingRequest{Setup: &drivers.ExecTaskStreamingRequest_Setup{TaskId: "t", Command: command, Tty: true}}
}

func stdin(data string) *drivers.ExecTaskStreamingRequest {
	return &drivers.ExecTaskStreamingRequest{Stdin: &drivers.ExecTaskStreamingIOOperation{Data: []byte(data)}}
}

func size(height, width int32) *drivers.ExecTaskStreamingRequest {
	return &drivers.ExecTaskStreamingRequest{TtySize: &drivers.ExecTaskStreamingRequest_TerminalSize{Height: height, Width: width}}
}

func TestServer_execFrames(t *testing.T) {
	t.Parallel()
	client := dial(t, careless{exec: func(ctx context.Context, opts ExecOptions) (*ExitResult, error) {
		input, err := io.ReadAll(opts.Stdin)
		if err != nil {
			return nil, err
		}
		// Only the last of several sizes counts; it is there once the input has ended, which came later.
		last := <-opts.Resize
		if _, err := opts.Stderr.Write([]byte{byte(last.Height), byte(last.Width)}); err != nil {
			return nil, err
		}
		if err := opts.Stderr.Close(); err != nil { // a driver may close an output itself
			return nil, err
		}
		_, err = opts.Stdout.Write(input)
		return &ExitResult{ExitCode: 7, Signal: 9}, err
	}}, io.Discard)
	stream, err := client.ExecTaskStreaming(t.Context())
	must.NoError(t, err)
	heartbeat := &drivers.ExecTaskStreamingRequest{}
	closing := &drivers.ExecTaskStreamingRequest{Stdin: &drivers.ExecTaskStreamingIOOperation{Close: true}}
	for _, message := range []*drivers.ExecTaskStreamingRequest{
		setup("cat"), heartbeat, size(1, 2), stdin("a"), heartbeat, size(3, 4), stdin("bc"), closing, heartbeat,
	} {
		must.NoError(t, stream.Send(message))
	}
	var got []string
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		must.NoError(t, err)
		got = append(got, frame(message))
	}
	test.Eq(t, []string{"err \x03\x04", "err closed", "out abc", "out closed", "exited 7 9"}, got)
}

func frame(message *drivers.ExecTaskStreamingResponse) string {
	switch {
	case message.GetExited():
		return fmt.Sprintf("exited %d %d", message.GetResult().GetExitCode(), message.GetResult().GetSignal())
	case message.GetStdout().GetClose():
		return "out closed"
	case message.GetStderr().GetClose():
		return "err closed"
	case message.GetStdout() != nil:
		return "out " + string(message.GetStdout().GetData())
	default:
		return "err " + string(message.GetStderr().GetData())
	}
}

func TestServer_execRefusesToStartWithoutSetup(t *testing.T) {
	t.Parallel()
	client := dial(t, careless{}, io.Discard)
	stream, err := client.ExecTaskStreaming(t.Context())
	must.NoError(t, err)
	must.NoError(t, stream.Send(stdin("x")))
	_, err = stream.Recv()
	must.ErrorContains(t, err, "the first message must be the setup")
}

// A client that is gone ends the command's context and input, and closes the sizes.
func TestServer_execEndsWithItsClient(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	begun := make(chan struct{})
	client := dial(t, careless{exec: func(ctx context.Context, opts ExecOptions) (*ExitResult, error) {
		close(begun)
		_, err := io.ReadAll(opts.Stdin)
		for range opts.Resize {
			continue
		}
		<-ctx.Done()
		ended <- err
		return nil, ctx.Err()
	}}, io.Discard)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := client.ExecTaskStreaming(ctx)
	must.NoError(t, err)
	must.NoError(t, stream.Send(setup("cat")))
	<-begun
	cancel()
	select {
	case err := <-ended:
		must.Error(t, err, must.Sprint("input that broke off is no input that ended"))
	case <-time.After(bound):
		t.Fatal("the command goes on without its client")
	}
}

// syncBuffer is a buffer that a server writes to while a test reads.
type syncBuffer struct {
	lock   sync.Mutex
	buffer bytes.Buffer
}

func (b *syncBuffer) Write(data []byte) (int, error) {
	b.lock.Lock()
	defer b.lock.Unlock()
	return b.buffer.Write(data)
}

func (b *syncBuffer) String() string {
	b.lock.Lock()
	defer b.lock.Unlock()
	return b.buffer.String()
}

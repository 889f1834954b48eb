package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nomad-promptflow/nomad-promptflow/plugin/hclspec"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/proto/base"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/proto/drivers"
)

// Client is the agent's side of the wire: every call of both services with this package's types. Launching a plugin and
// preparing its tasks is the work of plugin/agent.
type Client struct {
	base   base.BasePluginClient
	driver drivers.DriverClient
}

// NewClient speaks to the plugin behind a connection.
func NewClient(conn grpc.ClientConnInterface) *Client {
	return &Client{base: base.NewBasePluginClient(conn), driver: drivers.NewDriverClient(conn)}
}

// Info asks who the plugin is, and refuses one that is no driver or speaks no version of the API that we do.
func (c *Client) Info(ctx context.Context) (Info, error) {
	info, err := c.base.PluginInfo(ctx, &base.PluginInfoRequest{})
	if err != nil {
		return Info{}, FromStatus(err)
	}
	if info.GetType() != base.PluginType_DRIVER {
		return Info{}, fmt.Errorf("plugin %q is of type %s, not a task driver", info.GetName(), info.GetType())
	}
	for _, version := range info.GetPluginApiVersions() {
		if version == APIVersion {
			return Info{Name: info.GetName(), Version: info.GetPluginVersion()}, nil
		}
	}
	return Info{}, fmt.Errorf("plugin %q speaks API versions %v, not %s", info.GetName(), info.GetPluginApiVersions(), APIVersion)
}

// ConfigSchema asks for the schema of the plugin's configuration.
func (c *Client) ConfigSchema(ctx context.Context) (*hclspec.Spec, error) {
	response, err := c.base.ConfigSchema(ctx, &base.ConfigSchemaRequest{})
	return response.GetSpec(), FromStatus(err)
}

// SetConfig configures the plugin; client is nil to validate only.
func (c *Client) SetConfig(ctx context.Context, config []byte, client *ClientConfig) error {
	_, err := c.base.SetConfig(ctx, &base.SetConfigRequest{
		MsgpackConfig: config, NomadConfig: clientToWire(client), PluginApiVersion: APIVersion,
	})
	return FromStatus(err)
}

// Init tells the driver that it may begin. Drivers that do not know the call are fine.
func (c *Client) Init(ctx context.Context) error {
	_, err := c.driver.Init(ctx, &drivers.InitRequest{})
	return tolerateNotSupported(FromStatus(err))
}

// Shutdown tells the driver that the agent is about to end it. Drivers that do not know the call are fine.
func (c *Client) Shutdown(ctx context.Context) error {
	_, err := c.driver.Shutdown(ctx, &drivers.ShutdownRequest{})
	return tolerateNotSupported(FromStatus(err))
}

func tolerateNotSupported(err error) error {
	if errors.Is(err, ErrNotSupported) {
		return nil
	}
	return err
}

// TaskConfigSchema asks for the schema of a task's configuration.
func (c *Client) TaskConfigSchema(ctx context.Context) (*hclspec.Spec, error) {
	response, err := c.driver.TaskConfigSchema(ctx, &drivers.TaskConfigSchemaRequest{})
	return response.GetSpec(), FromStatus(err)
}

// Capabilities asks what the driver can do.
func (c *Client) Capabilities(ctx context.Context) (Capabilities, error) {
	response, err := c.driver.Capabilities(ctx, &drivers.CapabilitiesRequest{})
	return capabilitiesFromWire(response.GetCapabilities()), FromStatus(err)
}

// Fingerprint calls receive for every report until ctx or the stream ends.
func (c *Client) Fingerprint(ctx context.Context, receive func(Fingerprint)) error {
	stream, err := c.driver.Fingerprint(ctx, &drivers.FingerprintRequest{})
	return receiveAll(stream, err, func(f *drivers.FingerprintResponse) { receive(fingerprintFromWire(f)) })
}

// TaskEvents calls receive for every event until ctx or the stream ends.
func (c *Client) TaskEvents(ctx context.Context, receive func(TaskEvent)) error {
	stream, err := c.driver.TaskEvents(ctx, &drivers.TaskEventsRequest{})
	return receiveAll(stream, err, func(e *drivers.DriverTaskEvent) { receive(eventFromWire(e)) })
}

// receiveAll reads a server stream to its end. A stream that the server closed is no error.
func receiveAll[T any](stream grpc.ServerStreamingClient[T], err error, receive func(*T)) error {
	if err != nil {
		return FromStatus(err)
	}
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return FromStatus(err)
		}
		receive(message)
	}
}

// StartTask starts a task and returns the handle that an agent would keep.
func (c *Client) StartTask(ctx context.Context, task *TaskConfig) (*TaskHandle, *DriverNetwork, error) {
	response, err := c.driver.StartTask(ctx, &drivers.StartTaskRequest{Task: taskToWire(task)})
	if err != nil {
		return nil, nil, FromStatus(err)
	}
	return handleFromWire(response.GetHandle()), driverNetworkFromWire(response.GetNetworkOverride()), nil
}

// RecoverTask hands a task back to a driver that was restarted.
func (c *Client) RecoverTask(ctx context.Context, handle *TaskHandle) error {
	_, err := c.driver.RecoverTask(ctx, &drivers.RecoverTaskRequest{Handle: handleToWire(handle)})
	return FromStatus(err)
}

// WaitTask returns when the task has exited.
func (c *Client) WaitTask(ctx context.Context, id string) (*ExitResult, error) {
	response, err := c.driver.WaitTask(ctx, &drivers.WaitTaskRequest{TaskId: id})
	if err != nil {
		return nil, FromStatus(err)
	}
	exit := exitFromWire(response.GetResult())
	if response.GetErr() != "" {
		exit.Err = errors.New(response.GetErr())
	}
	return &exit, nil
}

// StopTask ends a task: signal, timeout, SIGKILL.
func (c *Client) StopTask(ctx context.Context, id string, timeout time.Duration, signal string) error {
	_, err := c.driver.StopTask(ctx, &drivers.StopTaskRequest{TaskId: id, Timeout: durationpb.New(timeout), Signal: signal})
	return FromStatus(err)
}

// DestroyTask removes a task.
func (c *Client) DestroyTask(ctx context.Context, id string, force bool) error {
	_, err := c.driver.DestroyTask(ctx, &drivers.DestroyTaskRequest{TaskId: id, Force: force})
	return FromStatus(err)
}

// InspectTask asks for a task's state.
func (c *Client) InspectTask(ctx context.Context, id string) (*TaskStatus, error) {
	response, err := c.driver.InspectTask(ctx, &drivers.InspectTaskRequest{TaskId: id})
	if err != nil {
		return nil, FromStatus(err)
	}
	return statusFromWire(response), nil
}

// TaskStats calls receive for every sample until ctx or the task ends.
func (c *Client) TaskStats(ctx context.Context, id string, interval time.Duration, receive func(TaskUsage)) error {
	stream, err := c.driver.TaskStats(ctx, &drivers.TaskStatsRequest{TaskId: id, CollectionInterval: durationpb.New(interval)})
	return receiveAll(stream, err, func(r *drivers.TaskStatsResponse) { receive(usageFromWire(r.GetStats())) })
}

// SignalTask sends a signal by name to a task.
func (c *Client) SignalTask(ctx context.Context, id, signal string) error {
	_, err := c.driver.SignalTask(ctx, &drivers.SignalTaskRequest{TaskId: id, Signal: signal})
	return FromStatus(err)
}

// ExecTask runs a command in a task and returns its output.
func (c *Client) ExecTask(ctx context.Context, id string, command []string, timeout time.Duration) (*ExecResult, error) {
	response, err := c.driver.ExecTask(ctx, &drivers.ExecTaskRequest{TaskId: id, Command: command, Timeout: durationpb.New(timeout)})
	if err != nil {
		return nil, FromStatus(err)
	}
	return &ExecResult{Stdout: response.GetStdout(), Stderr: response.GetStderr(), Exit: exitFromWire(response.GetResult())}, nil
}

// CreateNetwork asks the driver for an allocation's network.
func (c *Client) CreateNetwork(ctx context.Context, allocID, hostname string) (*NetworkIsolation, bool, error) {
	response, err := c.driver.CreateNetwork(ctx, &drivers.CreateNetworkRequest{AllocId: allocID, Hostname: hostname})
	return networkFromWire(response.GetIsolationSpec()), response.GetCreated(), FromStatus(err)
}

// DestroyNetwork gives an allocation's network back.
func (c *Client) DestroyNetwork(ctx context.Context, allocID string, spec *NetworkIsolation) error {
	_, err := c.driver.DestroyNetwork(ctx, &drivers.DestroyNetworkRequest{AllocId: allocID, IsolationSpec: networkToWire(spec)})
	return FromStatus(err)
}

// ExecTaskStreaming runs a command in a task with live input and output, until it exits. Outputs are not closed.
func (c *Client) ExecTaskStreaming(ctx context.Context, id string, opts ExecOptions) (*ExitResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.driver.ExecTaskStreaming(ctx)
	if err != nil {
		cancel()
		return nil, FromStatus(err)
	}
	var sender sync.WaitGroup
	defer sender.Wait()
	defer cancel()
	requests := &execSender{stream: stream}
	err = requests.send(&drivers.ExecTaskStreamingRequest{Setup: &drivers.ExecTaskStreamingRequest_Setup{
		TaskId: id, Command: opts.Command, Tty: opts.TTY,
	}})
	if err != nil {
		return nil, FromStatus(err)
	}
	if opts.Stdin != nil {
		// Not waited for: a read of a terminal cannot be interrupted. It ends with its first failed send.
		go requests.stdin(opts.Stdin)
	}
	sender.Add(1)
	go func() {
		defer sender.Done()
		requests.sizes(ctx, opts.Resize)
	}()
	return receiveExit(stream, opts)
}

// execHeartbeat keeps an idle exec's connection alive, as Nomad's CLI does.
const execHeartbeat = 10 * time.Second

// execSender sends the client's messages; a stream has one sender at a time.
type execSender struct {
	lock   sync.Mutex
	stream grpc.BidiStreamingClient[drivers.ExecTaskStreamingRequest, drivers.ExecTaskStreamingResponse]
}

func (s *execSender) send(message *drivers.ExecTaskStreamingRequest) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.stream.Send(message)
}

func (s *execSender) stdin(input io.Reader) {
	buffer := make([]byte, 4096)
	for {
		n, err := input.Read(buffer)
		if n > 0 {
			data := append([]byte(nil), buffer[:n]...)
			if s.send(&drivers.ExecTaskStreamingRequest{Stdin: &drivers.ExecTaskStreamingIOOperation{Data: data}}) != nil {
				return
			}
		}
		if err != nil {
			_ = s.send(&drivers.ExecTaskStreamingRequest{Stdin: &drivers.ExecTaskStreamingIOOperation{Close: true}})
			return
		}
	}
}

func (s *execSender) sizes(ctx context.Context, resize <-chan TerminalSize) {
	heartbeat := time.NewTicker(execHeartbeat)
	defer heartbeat.Stop()
	for {
		message := &drivers.ExecTaskStreamingRequest{}
		select {
		case <-ctx.Done():
			return
		case <-heartbeat.C:
		case size, ok := <-resize:
			if !ok {
				resize = nil
				continue
			}
			message.TtySize = &drivers.ExecTaskStreamingRequest_TerminalSize{Height: int32(size.Height), Width: int32(size.Width)}
		}
		if s.send(message) != nil {
			return
		}
	}
}

func receiveExit(stream grpc.BidiStreamingClient[drivers.ExecTaskStreamingRequest, drivers.ExecTaskStreamingResponse], opts ExecOptions) (*ExitResult, error) {
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("exec task: the plugin ended the stream without an exit")
		}
		if err != nil {
			return nil, FromStatus(err)
		}
		if err := writeOutput(opts.Stdout, message.GetStdout()); err != nil {
			return nil, err
		}
		if err := writeOutput(opts.Stderr, message.GetStderr()); err != nil {
			return nil, err
		}
		if message.GetExited() {
			exit := exitFromWire(message.GetResult())
			return &exit, nil
		}
	}
}

func writeOutput(to io.Writer, op *drivers.ExecTaskStreamingIOOperation) error {
	if to == nil || len(op.GetData()) == 0 {
		return nil
	}
	if _, err := to.Write(op.GetData()); err != nil {
		return fmt.Errorf("write exec output: %w", err)
	}
	return nil
}

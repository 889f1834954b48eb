package agent

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// goneTimeout bounds how long a broken call waits to learn whether the process is gone. The connection breaks before the process has
// been waited for; of a process that is no child of ours we hear by asking once a second.
const goneTimeout = 3 * time.Second

// connection tells the calls that failed because the plugin process is gone from those that the driver failed.
type connection struct {
	conn grpc.ClientConnInterface
	gone <-chan struct{}
}

// Invoke implements grpc.ClientConnInterface.
func (c *connection) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return c.explain(ctx, c.conn.Invoke(ctx, method, args, reply, opts...))
}

// NewStream implements grpc.ClientConnInterface.
func (c *connection) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := c.conn.NewStream(ctx, desc, method, opts...)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	return &explainedStream{ClientStream: stream, explain: func(err error) error { return c.explain(ctx, err) }}, nil
}

func (c *connection) explain(ctx context.Context, err error) error {
	if code := status.Code(err); code != codes.Unavailable && code != codes.Canceled {
		return err
	}
	if ctx.Err() != nil {
		// The caller gave up; the connection may be fine.
		return err
	}
	timeout := time.NewTimer(goneTimeout)
	defer timeout.Stop()
	select {
	case <-c.gone:
		return fmt.Errorf("%w: %s", plugin.ErrPluginShutdown, status.Convert(err).Message())
	case <-ctx.Done():
		return err
	case <-timeout.C:
		return err
	}
}

// explainedStream does for a stream what connection does for calls. It goes by the caller's context: the stream's own ends with
// every error.
type explainedStream struct {
	grpc.ClientStream
	explain func(error) error
}

// RecvMsg implements grpc.ClientStream.
func (s *explainedStream) RecvMsg(message any) error {
	return s.explain(s.ClientStream.RecvMsg(message))
}

package plugin

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/nomad-promptflow/nomad-promptflow/plugin/proto/base"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/proto/drivers"
)

// NewLogger returns the logger of a plugin process: JSON lines on stderr at every level, which the agent filters. It must be made
// before [Serve], which takes stderr away.
func NewLogger(name string) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name:       name,
		Level:      hclog.Trace,
		JSONFormat: true,
		Output:     os.Stderr,
	})
}

// Serve answers an agent with the driver and returns when the agent ends the plugin.
func Serve(driver Driver, logger hclog.Logger) {
	// An agent that was killed leaves a broken stderr, and Go ends a process on the first write there, unless somebody
	// listens for the signal. To ignore it would do too, but the driver's child processes would inherit that.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: Handshake,
		Plugins: goplugin.PluginSet{
			BaseService: &service{register: func(s *grpc.Server) { base.RegisterBasePluginServer(s, &baseServer{driver: driver}) }},
			DriverService: &service{register: func(s *grpc.Server) {
				drivers.RegisterDriverServer(s, &driverServer{driver: driver, logger: logger})
			}},
		},
		GRPCServer: goplugin.DefaultGRPCServer,
		Logger:     logger,
	})
}

// service is one gRPC service in go-plugin's form; the agent's side is in plugin/agent.
type service struct {
	goplugin.NetRPCUnsupportedPlugin
	register func(*grpc.Server)
}

// GRPCServer implements goplugin.GRPCPlugin.
func (s *service) GRPCServer(_ *goplugin.GRPCBroker, server *grpc.Server) error {
	s.register(server)
	return nil
}

// GRPCClient implements goplugin.GRPCPlugin.
func (s *service) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, ErrNotSupported
}

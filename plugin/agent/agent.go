// Package agent is the agent's side of Nomad's plugin protocol: it launches a plugin binary as a Nomad agent does, decodes
// configurations by the plugin's schemas, prepares the folder, environment and logs of a task, and drives the task through its
// life. Dev mode runs on it, and so do the tests of every driver call.
//
// The types to know: [Plugin], a running plugin process, whose embedded [plugin.Client] has the calls; [DecodeConfig], from HCL
// text to what goes over the wire; [Alloc], a task's place on disk.
//
// It never schedules, restarts or supervises: that is the business of whoever uses it.
package agent

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

const (
	// startTimeout is how long an agent waits for the plugin's first line.
	startTimeout = time.Minute
	// shutdownTimeout bounds the Shutdown call, the only one to which an agent gives a deadline.
	shutdownTimeout = 2 * time.Second
)

// Options say how to launch a plugin.
type Options struct {
	Path   string   // the plugin binary
	Args   []string // an agent gives none unless its configuration does
	Env    []string // beside this process's own
	Logger hclog.Logger
	Stderr io.Writer // raw copy of what the plugin writes there; nil: only logged
}

// Plugin is a running plugin process.
type Plugin struct {
	*plugin.Client
	process *goplugin.Client
	pid     int
}

// Launch starts a plugin and shakes hands with it.
func Launch(opts Options) (*Plugin, error) {
	// No call's context: the process ends with Close or Kill.
	cmd := exec.CommandContext(context.Background(), opts.Path, opts.Args...)
	cmd.Env = append(os.Environ(), opts.Env...)
	// An interrupt at the terminal is for the agent, which then ends the plugin in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return connect(goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  plugin.Handshake,
		Plugins:          goplugin.PluginSet{plugin.DriverService: connector{}},
		Cmd:              cmd,
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		StartTimeout:     startTimeout,
		Stderr:           opts.Stderr,
		Logger:           logger(opts.Logger),
	}), opts.Path)
}

// ReattachConfig says where a running plugin is to be found, also after the agent that started it died.
type ReattachConfig = goplugin.ReattachConfig

// Reattach connects to a plugin that is running already. As with an agent, no configuration is set again.
func Reattach(config *ReattachConfig, log hclog.Logger) (*Plugin, error) {
	return connect(goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  plugin.Handshake,
		Plugins:          goplugin.PluginSet{plugin.DriverService: connector{}},
		Reattach:         config,
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		Logger:           logger(log),
	}), fmt.Sprintf("process %d", config.Pid))
}

func logger(log hclog.Logger) hclog.Logger {
	if log == nil {
		return hclog.NewNullLogger()
	}
	return log
}

func connect(process *goplugin.Client, name string) (*Plugin, error) {
	protocol, err := process.Client()
	if err != nil {
		process.Kill()
		return nil, fmt.Errorf("launch plugin %s: %w", name, err)
	}
	client, err := protocol.Dispense(plugin.DriverService)
	if err != nil {
		process.Kill()
		return nil, fmt.Errorf("dispense driver of plugin %s: %w", name, err)
	}
	p := &Plugin{Client: client.(*plugin.Client), process: process}
	if reattach := process.ReattachConfig(); reattach != nil {
		p.pid = reattach.Pid
	}
	return p, nil
}

// PID is the plugin's process id.
func (p *Plugin) PID() int { return p.pid }

// ReattachConfig is what [Reattach] needs to find this process again.
func (p *Plugin) ReattachConfig() *ReattachConfig { return p.process.ReattachConfig() }

// Exited says whether the process is gone.
func (p *Plugin) Exited() bool { return p.process.Exited() }

// Close ends the plugin as an agent that stops does: the driver is told, then asked to leave, then killed. Tasks go on.
func (p *Plugin) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	// Best effort: a plugin that does not answer is killed all the same.
	_ = p.Shutdown(ctx)
	p.process.Kill()
}

// Kill ends the plugin with SIGKILL, unannounced.
func (p *Plugin) Kill() error {
	if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill plugin process %d: %w", p.pid, err)
	}
	p.process.Kill()
	return nil
}

// connector makes the client of both services: they share one connection.
type connector struct {
	goplugin.NetRPCUnsupportedPlugin
}

// GRPCServer implements goplugin.GRPCPlugin; this side serves nothing.
func (connector) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error { return plugin.ErrNotSupported }

// GRPCClient implements goplugin.GRPCPlugin. The context is the process's: it ends with it.
func (connector) GRPCClient(process context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return plugin.NewClient(&connection{conn: conn, gone: process.Done()}), nil
}

// Package plugin is Nomad's task driver plugin protocol, written from its wire contract: what a driver
// answers and what an agent asks.
//
// A driver implements [Driver] and hands it to [Serve]. The agent's side, which launches a plugin binary and
// drives tasks through it, is the package plugin/agent. The generated wire types in plugin/proto stay
// inside these two packages: everybody else sees the Go types of this file, which cannot express the messages that
// make an agent panic (a handle without its config, stats without usage, an exec without a result).
//
// The package imports nothing else of ours and nothing of github.com/hashicorp/nomad.
package plugin

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/plugin/hclspec"
)

// APIVersion is the only version of the plugin API that agents offer (Nomad 0.9 to 2.x).
const APIVersion = "v0.1.0"

var (
	// ErrTaskNotFound is the answer for a task id that the driver does not know.
	ErrTaskNotFound = errors.New("task not found for given id")
	// ErrNotSupported is the answer to a call that the driver does not implement.
	ErrNotSupported = errors.New("not supported by this driver")
	// ErrPluginShutdown is what the agent's side says of a call during which the plugin process went away. The task lives on:
	// launch the plugin again and hand the task back with RecoverTask.
	ErrPluginShutdown = errors.New("plugin is shut down")
)

// Info says who the plugin is. Version must be a version as go-version reads it ("0.1.0").
type Info struct {
	Name    string
	Version string
}

// ClientConfig is what the agent tells a driver of itself in SetConfig. It is nil while the agent only validates
// the configuration.
type ClientConfig struct {
	MinPort, MaxPort uint32
	Topology         *Topology // nil from agents before 1.7
}

// Topology is the node's processor topology as the agent sees it; speeds are MHz.
type Topology struct {
	NodeIDs                []uint32
	Cores                  []Core
	OverrideTotalCompute   uint64
	OverrideWitholdCompute uint64
}

// Core is one processor core.
type Core struct {
	SocketID, NodeID, CoreID        uint32
	Efficiency                      bool
	Disable                         bool
	BaseSpeed, MaxSpeed, GuessSpeed uint64
}

// Driver is a Nomad task driver. The agent puts no deadline on any call but Shutdown: an implementation
// bounds its own work. Order of calls: Info, ConfigSchema, SetConfig (validated twice, then for real), Init,
// Fingerprint and TaskEvents (both held open for the plugin's life), then tasks. After an agent was killed hard the
// plugin is found again *without* SetConfig.
type Driver interface {
	Info() Info
	// ConfigSchema describes the body of the agent's plugin "…" { config { } } block.
	ConfigSchema() *hclspec.Spec
	// SetConfig takes the decoded plugin configuration as msgpack (decode with DecodeConfig). It fails for a bad
	// configuration only, never because something it names is down: an error stops the agent from starting.
	SetConfig(ctx context.Context, config []byte, client *ClientConfig) error
	Init(ctx context.Context) error
	Shutdown(ctx context.Context) error

	// TaskConfigSchema describes the body of a task's config { } block.
	TaskConfigSchema() *hclspec.Spec
	Capabilities() Capabilities
	// Fingerprint sends the node's state at once and on every change until ctx ends. It must not return earlier.
	Fingerprint(ctx context.Context, send func(Fingerprint) error) error
	// TaskEvents sends events of tasks until ctx ends. It must not return earlier.
	TaskEvents(ctx context.Context, send func(TaskEvent) error) error

	// StartTask returns when the task runs. DriverState is opaque to the agent and all that RecoverTask can rely on.
	StartTask(ctx context.Context, task *TaskConfig) (*StartedTask, error)
	// RecoverTask takes a task back after a restart of the plugin or the agent. handle.Config.DriverConfig is empty after
	// an agent restart.
	RecoverTask(ctx context.Context, handle *TaskHandle) error
	// WaitTask returns when the task has exited; many callers may wait, also after the exit, until DestroyTask.
	WaitTask(ctx context.Context, id string) (*ExitResult, error)
	// StopTask sends signal (empty: the driver's default), kills after timeout and returns when the task has ended. It
	// succeeds for a task that is unknown or has ended.
	StopTask(ctx context.Context, id string, timeout time.Duration, signal string) error
	// DestroyTask removes everything of the task. It succeeds for an unknown task.
	DestroyTask(ctx context.Context, id string, force bool) error
	InspectTask(ctx context.Context, id string) (*TaskStatus, error)
	TaskStats(ctx context.Context, id string, interval time.Duration, send func(TaskUsage) error) error
	SignalTask(ctx context.Context, id, signal string) error
	ExecTask(ctx context.Context, id string, command []string, timeout time.Duration) (*ExecResult, error)
	ExecTaskStreaming(ctx context.Context, id string, opts ExecOptions) (*ExitResult, error)
	CreateNetwork(ctx context.Context, allocID, hostname string) (spec *NetworkIsolation, created bool, err error)
	DestroyNetwork(ctx context.Context, allocID string, spec *NetworkIsolation) error
}

// FSIsolation says what of the host's file system a task sees.
type FSIsolation int32

// The kinds of file system isolation, in the protocol's numbers.
const (
	FSIsolationNone FSIsolation = iota
	FSIsolationChroot
	FSIsolationImage
	FSIsolationUnveil
)

// NetworkMode is a way in which a task's network is set apart.
type NetworkMode int32

// The network isolation modes, in the protocol's numbers.
const (
	NetworkHost NetworkMode = iota
	NetworkGroup
	NetworkTask
	NetworkNone
)

// Capabilities say what a driver can do; the agent switches its own behaviour by them.
type Capabilities struct {
	SendSignals          bool
	Exec                 bool
	FSIsolation          FSIsolation
	NetworkModes         []NetworkMode
	MustCreateNetwork    bool
	NoMounts             bool // refuse host volumes and CSI
	DisableLogCollection bool // no logmon, no FIFOs
	DynamicWorkloadUsers bool
}

// Health is the state of a driver on a node.
type Health int32

// The states of a driver on a node, in the protocol's numbers. Only Healthy is schedulable.
const (
	Undetected Health = iota
	Unhealthy
	Healthy
)

// Fingerprint is one report of the driver about its node. Attribute values are string, bool, int64 or float64.
// An attribute that is gone is sent as "" once.
type Fingerprint struct {
	Attributes  map[string]any
	Health      Health
	Description string
	Err         error
}

// TaskEvent is a line in a task's event list.
type TaskEvent struct {
	TaskID, AllocID, TaskName string
	Time                      time.Time
	Message                   string
	Annotations               map[string]string
}

// TaskConfig is everything the agent says of a task.
type TaskConfig struct {
	ID, Name, JobID, JobName, GroupName, AllocID, Namespace, NodeID, NodeName string
	DriverConfig                                                              []byte // msgpack of the config block, decode with DecodeConfig
	Env, DeviceEnv                                                            map[string]string
	Resources                                                                 Resources
	Mounts                                                                    []Mount
	Devices                                                                   []Device
	User                                                                      string
	AllocDir                                                                  string // the allocation's root; the task's own folder is AllocDir/Name
	StdoutPath, StderrPath                                                    string
	Network                                                                   *NetworkIsolation // nil in host mode
	DNS                                                                       *DNS              // nil: the host's
}

// Resources of a task. CPUShares is MHz; MemoryMB the reservation, MemoryMaxMB the hard limit (0: as MemoryMB,
// -1: unlimited).
type Resources struct {
	CPUShares             int64
	MemoryMB, MemoryMaxMB int64
	Networks              []NetworkResource // legacy, of the task
	Linux                 *LinuxResources
	Ports                 []Port // of the group
}

// NetworkResource is a task-level network of old jobs.
type NetworkResource struct {
	Device, CIDR, IP            string
	MBits                       int32
	ReservedPorts, DynamicPorts []Port
}

// Port is a port the agent assigned: Host on the node, To inside (0: the same).
type Port struct {
	Label    string
	Host, To int32
	HostIP   string
}

// LinuxResources are the agent's numbers for cgroups. CgroupPath is where the agent expects the task.
type LinuxResources struct {
	CPUPeriod, CPUQuota, CPUShares int64
	MemoryLimitBytes, OOMScoreAdj  int64
	CpusetCPUs, CgroupPath         string
	PercentTicks                   float64
}

// Mount is a host folder to mount into the task.
type Mount struct {
	TaskPath, HostPath, Propagation, SELinuxLabel, RequestName string
	ReadOnly                                                   bool
}

// Device is a host device to give to the task.
type Device struct{ TaskPath, HostPath, CgroupPermissions string }

// DNS is the resolver configuration of a task.
type DNS struct{ Servers, Searches, Options []string }

// NetworkIsolation is a network namespace made for an allocation.
type NetworkIsolation struct {
	Mode   NetworkMode
	Path   string
	Labels map[string]string
	Hosts  *HostsConfig
}

// HostsConfig is the hostname and address for the task's hosts file.
type HostsConfig struct{ Hostname, Address string }

// TaskState is the state of a task.
type TaskState int32

// The states of a task, in the protocol's numbers.
const (
	TaskUnknown TaskState = iota
	TaskRunning
	TaskExited
)

// StartedTask is StartTask's answer. The agent's copy of the handle is made from the TaskConfig that came with the call.
type StartedTask struct {
	DriverState []byte
	Network     *DriverNetwork // nil: none of the driver's own
}

// DriverNetwork is the network a driver itself gave a task.
type DriverNetwork struct {
	PortMap       map[string]int32
	IP            string
	AutoAdvertise bool
}

// TaskHandle is what the agent kept of a started task.
type TaskHandle struct {
	Version     int32
	Config      *TaskConfig
	State       TaskState
	DriverState []byte
}

// ExitResult says how a task or an exec ended. Signal is 0 unless a signal ended it.
type ExitResult struct {
	ExitCode  int
	Signal    int
	OOMKilled bool
	Err       error // the driver could not learn the exit
}

// TaskStatus is InspectTask's answer.
type TaskStatus struct {
	ID, Name               string
	State                  TaskState
	StartedAt, CompletedAt time.Time
	Exit                   ExitResult
	Attributes             map[string]string
}

// TaskUsage is one sample of a task's use of resources. CPU percentages are of one core; ticks are MHz.
type TaskUsage struct {
	Time time.Time
	Usage
	PerPID map[string]Usage
}

// Usage is what the cgroup counters say. Nil parts were not measured.
type Usage struct {
	CPU    *CPUUsage
	Memory *MemoryUsage
}

// CPUUsage of a task. Measured lists the fields that hold a measurement, by their protocol names
// ("System Mode", "User Mode", "Total Ticks", "Throttled Periods", "Throttled Time", "Percent").
type CPUUsage struct {
	SystemMode, UserMode, TotalTicks, Percent float64
	ThrottledPeriods, ThrottledTime           uint64
	Measured                                  []string
}

// MemoryUsage of a task in bytes. Measured as in CPUUsage ("RSS", "Cache", "Max Usage", "Kernel Usage",
// "Kernel Max Usage", "Usage", "Swap").
type MemoryUsage struct {
	RSS, Cache, MaxUsage, KernelUsage, KernelMaxUsage, Usage, Swap uint64
	Measured                                                       []string
}

// ExecResult is the whole result of a finished exec.
type ExecResult struct {
	Stdout, Stderr []byte
	Exit           ExitResult
}

// TerminalSize in characters.
type TerminalSize struct{ Height, Width int }

// ExecOptions describe a streaming exec. Resize is closed when the client is gone.
type ExecOptions struct {
	Command        []string
	TTY            bool
	Stdin          io.ReadCloser
	Stdout, Stderr io.WriteCloser
	Resize         <-chan TerminalSize
}

package driver

import (
	"context"
	"errors"
	"io"
	"syscall"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nomad-promptflow/nomad-promptflow/driver/registry"
	"github.com/nomad-promptflow/nomad-promptflow/driver/spec"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// What the driver decides on when an engine fails. Everything else is final for the task.
var (
	// ErrNoContainer means that the engine has no container, or no process in it, by that id.
	ErrNoContainer = errors.New("no such container")
	// ErrNoImage means that an image or environment is nowhere to be had.
	ErrNoImage = errors.New("image not found")
	// ErrImageInUse means that an image cannot be removed because a container is made from it.
	ErrImageInUse = errors.New("image is in use")
	// ErrUnavailable means that the engine's daemon does not answer.
	ErrUnavailable = errors.New("container engine does not answer")
	// ErrNoCommand means that a container's command is not in the image, or cannot be executed there.
	ErrNoCommand = errors.New("the command is not in the image, or cannot be executed there")
	// ErrTransient marks an error that may pass by itself, such as a network's.
	ErrTransient = registry.ErrTransient
)

// Engine runs containers. The package driver/engine is the one on containerd. Calls are made with a bound on their
// context, and return errors that wrap the ones above where those fit.
type Engine interface {
	// Probe asks whether the engine can run containers at all, and which of the runtimes, by their full names, it has.
	Probe(ctx context.Context, runtimes []string) (EngineInfo, error)
	// EnsureImage makes the image ready to start containers from.
	EnsureImage(ctx context.Context, request ImageRequest) (*Image, error)
	// ImageDigest is the digest of an image that the engine has, or ErrNoImage.
	ImageDigest(ctx context.Context, name string) (string, error)
	// FetchedImages are the names of the images that EnsureImage brought, now or in another life of this process.
	FetchedImages(ctx context.Context) ([]string, error)
	// RemoveImage removes an image that EnsureImage brought, and leaves every other alone. It succeeds when there is none; one
	// that a container is made from is ErrImageInUse.
	RemoveImage(ctx context.Context, name string) error
	// LookupUser reads user and more groups by the passwd and group files of image.
	LookupUser(ctx context.Context, image *Image, user string, groups []string) (spec.User, error)

	// Create makes a container whose process does not run yet, and returns that process's id. After an error nothing of it
	// is left.
	Create(ctx context.Context, request ContainerRequest) (pid int, err error)
	// Start lets the process of a created container run.
	Start(ctx context.Context, id string) error
	// Inspect describes a container.
	Inspect(ctx context.Context, id string) (*Container, error)
	// Wait returns when the container's process has ended, also when it did so long ago.
	Wait(ctx context.Context, id string) (Exit, error)
	// Kill sends a signal to the container's process. It succeeds when the process has ended.
	Kill(ctx context.Context, id string, signal syscall.Signal) error
	// Stop kills the container's process and forgets how it ended, and keeps the container.
	Stop(ctx context.Context, id string) error
	// Remove removes everything of a container, running or not. It succeeds when there is none.
	Remove(ctx context.Context, id string) error
	// List names what the engine has of containers with a mark of that name: also what there is of one that never came to be.
	List(ctx context.Context, mark string) ([]Remains, error)
	// Relabel sets labels of a container and keeps its others.
	Relabel(ctx context.Context, id string, labels map[string]string) error
	// Exec runs a command in a running container until it ends, or kills it when ctx does.
	Exec(ctx context.Context, id string, request ExecRequest) (Exit, error)
	// Usage reads the container's counters.
	Usage(ctx context.Context, id string) (*Usage, error)
	// Close lets go of the daemon. Containers stay.
	Close() error
}

// EngineInfo says who the engine is.
type EngineInfo struct {
	Version  string
	Runtimes []string
}

// ImageSource is where images come from that no registry has: an OCI layout.
type ImageSource interface {
	Resolve(ctx context.Context, ref string) (ocispec.Descriptor, error)
	Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
}

// PullPolicy says when an image is fetched though the engine has it.
type PullPolicy string

// The pull policies.
const (
	PullIfNotPresent PullPolicy = "if-not-present"
	PullAlways       PullPolicy = "always"
	PullNever        PullPolicy = "never"
)

// ContainerRequest describes a container to make. The engine adds its default seccomp profile to a Spec that has none, unless
// SeccompUnconfined is set.
type ContainerRequest struct {
	ID    string
	Image *Image
	Spec  *specs.Spec
	// Runtime is a shim's full name; empty for the engine's default.
	Runtime           string
	SeccompUnconfined bool

	Labels map[string]string
	// Marks are labels of all that is made for the container, so that it is found if the making is cut off.
	Marks map[string]string
	// Stdout and Stderr are paths the engine itself opens for writing; empty discards.
	Stdout, Stderr string
}

// Remains are a container, or what there is of one that never came to be or was not removed whole.
type Remains struct {
	ID      string
	Labels  map[string]string
	Created time.Time
}

// Container is a container that the engine has.
type Container struct {
	Labels  map[string]string
	Running bool
	PID     int
	// Exit is set for a container whose process has ended and can be asked for that. A container that has no
	// process (as after a reboot) has neither Running nor Exit.
	Exit *Exit
}

// Exit says how a process ended, in the words of a shell: 128 + n for signal n.
type Exit struct {
	Code int
	At   time.Time
}

// ExecRequest is a command to run inside a container.
type ExecRequest struct {
	Command []string
	TTY     bool
	Stdin   io.Reader // nil: none
	Stdout  io.Writer
	Stderr  io.Writer // unused with a TTY
	// Resize tells of the terminal's size until it is closed; it may be nil.
	Resize <-chan plugin.TerminalSize
}

// Usage is what a container's cgroup counted since its start, and holds now. CPU times are in nanoseconds, memory in bytes.
// What the kernel or the runtime does not count is nil.
type Usage struct {
	CPUTotal, CPUUser, CPUSystem            *uint64
	ThrottledPeriods, ThrottledTime         *uint64
	MemoryUsage, MemoryMax, RSS, Cache      *uint64
	KernelUsage, KernelMaxUsage, MemorySwap *uint64
}

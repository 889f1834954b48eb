package agent

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// AllocConfig says what an allocation is made of. CPU is MHz, memory MiB.
type AllocConfig struct {
	Dir        string // the allocation's root: a new or empty folder, which Destroy removes
	ID         string // empty: a new one
	Job        string
	Group      string // empty: as Job
	Task       string
	Namespace  string // empty: "default"
	Region     string // empty: "global"
	Datacenter string // empty: "dc1"
	NodeID     string
	NodeName   string
	Index      int

	// MemoryMB is the reservation, MemoryMaxMB the limit (0: as MemoryMB, -1: none).
	CPU, MemoryMB, MemoryMaxMB int64

	Ports   []plugin.Port
	Network *plugin.NetworkIsolation
	DNS     *plugin.DNS
	Mounts  []plugin.Mount
	Devices []plugin.Device
	User    string
	Env     map[string]string // beside what an agent sets
	// CgroupPath is where the task's cgroup shall be; empty: the driver's choice.
	CgroupPath string
	// SecretsTmpfs keeps the secrets and private folders in memory, as an agent that runs as root does. It takes root.
	SecretsTmpfs bool
}

// Alloc is an allocation of one task on disk: folders, log pipes and their collectors.
type Alloc struct {
	config  AllocConfig
	folders *folders
	logs    *Logs
}

// NewAlloc makes the folders and log pipes, and starts collecting logs.
func NewAlloc(config AllocConfig) (*Alloc, error) {
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("make allocation: %w", err)
	}
	config.ID = orElse(config.ID, newUUID())
	config.Group = orElse(config.Group, config.Job)
	config.Namespace = orElse(config.Namespace, "default")
	config.Region = orElse(config.Region, "global")
	config.Datacenter = orElse(config.Datacenter, "dc1")
	folders, err := makeFolders(config.Dir, config.Task, config.SecretsTmpfs)
	if err != nil {
		return nil, fmt.Errorf("make allocation: %w", err)
	}
	logs, err := collectLogs(filepath.Join(config.Dir, sharedDir, "logs"), config.Task)
	if err != nil {
		return nil, fmt.Errorf("make allocation: %w", errors.Join(err, folders.remove()))
	}
	return &Alloc{config: config, folders: folders, logs: logs}, nil
}

func (c *AllocConfig) validate() error {
	switch {
	case c.Dir == "" || c.Job == "" || c.Task == "":
		return errors.New("folder, job and task must be named")
	case !filepath.IsAbs(c.Dir):
		return fmt.Errorf("folder %q: must be absolute, because the plugin has a working folder of its own", c.Dir)
	case c.Task == sharedDir || c.Task == "." || c.Task == ".." || strings.ContainsAny(c.Task, "/\x00"):
		return fmt.Errorf("task %q: cannot be the name of its folder", c.Task)
	}
	return nil
}

func orElse(value, otherwise string) string {
	if value != "" {
		return value
	}
	return otherwise
}

// ID is the allocation's id.
func (a *Alloc) ID() string { return a.config.ID }

// TaskDir is the task's own folder on the host.
func (a *Alloc) TaskDir() string { return filepath.Join(a.config.Dir, a.config.Task) }

// SecretsDir is the task's secrets folder on the host.
func (a *Alloc) SecretsDir() string { return filepath.Join(a.TaskDir(), secretsDir) }

// Logs are the collected outputs of the task.
func (a *Alloc) Logs() *Logs { return a.logs }

// Task returns what StartTask is given, with a new task id as every start of a task has.
func (a *Alloc) Task(driverConfig []byte) *plugin.TaskConfig {
	c := a.config
	return &plugin.TaskConfig{
		ID:           c.ID + "/" + c.Task + "/" + randomHex(4),
		Name:         c.Task,
		JobID:        c.Job,
		JobName:      c.Job,
		GroupName:    c.Group,
		AllocID:      c.ID,
		Namespace:    c.Namespace,
		NodeID:       c.NodeID,
		NodeName:     c.NodeName,
		DriverConfig: driverConfig,
		Env:          a.Env(),
		Resources: plugin.Resources{
			CPUShares: c.CPU, MemoryMB: c.MemoryMB, MemoryMaxMB: c.MemoryMaxMB, Ports: c.Ports,
			// An agent that means no limit still sends the reservation here.
			Linux: &plugin.LinuxResources{CPUShares: c.CPU, MemoryLimitBytes: max(c.MemoryMB, c.MemoryMaxMB) << 20, CgroupPath: c.CgroupPath},
		},
		Mounts:     c.Mounts,
		Devices:    c.Devices,
		User:       c.User,
		AllocDir:   c.Dir,
		StdoutPath: a.logs.StdoutPath,
		StderrPath: a.logs.StderrPath,
		Network:    c.Network,
		DNS:        c.DNS,
	}
}

// Destroy ends the collectors, unmounts what was mounted and removes the folders. The task must be destroyed before. It can be
// called again.
func (a *Alloc) Destroy() error {
	return errors.Join(a.logs.Close(), a.folders.remove())
}

// newUUID returns a random id in the form of an allocation's.
func newUUID() string {
	b := make([]byte, 16)
	// Never fails: the runtime ends the process instead.
	_, _ = rand.Read(b)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

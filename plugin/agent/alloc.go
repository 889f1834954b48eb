package agent

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// AllocConfig says what an allocation is made of. CPU is MHz, memory MiB.
type AllocConfig struct {
	Dir       string // the allocation's root; it is created, and removed by Destroy
	ID        string // empty: a new one
	Job       string
	Group     string // empty: as Job
	Task      string
	Namespace string // empty: "default"
	NodeName  string
	Index     int

	CPU, MemoryMB, MemoryMaxMB int64

	Ports   []plugin.Port
	Network *plugin.NetworkIsolation
	User    string
	Env     map[string]string // beside what an agent sets
	// SecretsTmpfs puts the secrets folder into memory, as an agent that runs as root does.
	SecretsTmpfs bool
}

// Alloc is an allocation of one task on disk: folders, log pipes and their collectors.
type Alloc struct {
	config AllocConfig
	logs   *Logs
	// tmpfs is the secrets folder when it is mounted.
	tmpfs string
}

// The folders of an allocation below its root, and of a task below the task's own, with an agent's modes: a container may
// run as any user.
var (
	allocDirs = []string{"alloc", "alloc/data", "alloc/logs", "alloc/tmp"}
	taskDirs  = []string{"local", "secrets", "tmp"}
)

// secretsSize is the size of a secrets tmpfs.
const secretsSize = "1m"

// NewAlloc makes the folders and log pipes, and starts collecting logs.
func NewAlloc(config AllocConfig) (*Alloc, error) {
	if config.Task == "" || config.Job == "" || config.Dir == "" {
		return nil, errors.New("make allocation: folder, job and task must be named")
	}
	if config.ID == "" {
		config.ID = newUUID()
	}
	config.Group = named(config.Group, config.Job)
	config.Namespace = named(config.Namespace, "default")
	a := &Alloc{config: config}
	if err := a.create(); err != nil {
		return nil, errors.Join(fmt.Errorf("make allocation: %w", err), a.Destroy())
	}
	return a, nil
}

func (a *Alloc) create() error {
	if err := os.MkdirAll(a.config.Dir, 0o755); err != nil {
		return err
	}
	for _, dir := range allocDirs {
		if err := makeDir(filepath.Join(a.config.Dir, dir), 0o777); err != nil {
			return err
		}
	}
	if err := makeDir(a.TaskDir(), 0o777); err != nil {
		return err
	}
	for _, dir := range taskDirs {
		if err := makeDir(filepath.Join(a.TaskDir(), dir), 0o777); err != nil {
			return err
		}
	}
	if err := makeDir(filepath.Join(a.TaskDir(), "private"), 0o700); err != nil {
		return err
	}
	if a.config.SecretsTmpfs {
		if err := a.mountSecrets(); err != nil {
			return err
		}
	}
	logs, err := collectLogs(filepath.Join(a.config.Dir, "alloc", "logs"), a.config.Task)
	if err != nil {
		return err
	}
	a.logs = logs
	return nil
}

// makeDir sets the mode against the umask.
func makeDir(path string, mode os.FileMode) error {
	if err := os.MkdirAll(path, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

func (a *Alloc) mountSecrets() error {
	dir := a.SecretsDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "mode=0777,size="+secretsSize); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	a.tmpfs = dir
	return nil
}

// ID is the allocation's id.
func (a *Alloc) ID() string { return a.config.ID }

// TaskDir is the task's own folder on the host.
func (a *Alloc) TaskDir() string { return filepath.Join(a.config.Dir, a.config.Task) }

// SecretsDir is the task's secrets folder on the host.
func (a *Alloc) SecretsDir() string { return filepath.Join(a.TaskDir(), "secrets") }

// Logs are the collected outputs of the task.
func (a *Alloc) Logs() *Logs { return a.logs }

// Task returns what StartTask is given, with a new task id as every start of a task has.
func (a *Alloc) Task(driverConfig []byte) *plugin.TaskConfig {
	c := a.config
	suffix := make([]byte, 4)
	_, _ = rand.Read(suffix)
	return &plugin.TaskConfig{
		ID:           c.ID + "/" + c.Task + "/" + hex.EncodeToString(suffix),
		Name:         c.Task,
		JobID:        c.Job,
		JobName:      c.Job,
		GroupName:    c.Group,
		AllocID:      c.ID,
		Namespace:    c.Namespace,
		NodeName:     c.NodeName,
		DriverConfig: driverConfig,
		Env:          a.Env(),
		Resources: plugin.Resources{
			CPUShares: c.CPU, MemoryMB: c.MemoryMB, MemoryMaxMB: c.MemoryMaxMB, Ports: c.Ports,
			Linux: &plugin.LinuxResources{CPUShares: c.CPU, MemoryLimitBytes: max(c.MemoryMB, c.MemoryMaxMB) << 20},
		},
		User:       c.User,
		AllocDir:   c.Dir,
		StdoutPath: a.logs.StdoutPath,
		StderrPath: a.logs.StderrPath,
		Network:    c.Network,
	}
}

// Env is the environment that an agent gives to a task whose file system is its image's.
func (a *Alloc) Env() map[string]string {
	c := a.config
	env := map[string]string{
		"NOMAD_ALLOC_DIR":      "/alloc",
		"NOMAD_TASK_DIR":       "/local",
		"NOMAD_SECRETS_DIR":    "/secrets",
		"NOMAD_ALLOC_ID":       c.ID,
		"NOMAD_SHORT_ALLOC_ID": c.ID[:min(8, len(c.ID))],
		"NOMAD_ALLOC_INDEX":    strconv.Itoa(c.Index),
		"NOMAD_ALLOC_NAME":     fmt.Sprintf("%s.%s[%d]", c.Job, c.Group, c.Index),
		"NOMAD_JOB_ID":         c.Job,
		"NOMAD_JOB_NAME":       c.Job,
		"NOMAD_GROUP_NAME":     c.Group,
		"NOMAD_TASK_NAME":      c.Task,
		"NOMAD_NAMESPACE":      c.Namespace,
		"NOMAD_REGION":         "global",
		"NOMAD_DC":             "dc1",
		"NOMAD_CPU_LIMIT":      strconv.FormatInt(c.CPU, 10),
		"NOMAD_MEMORY_LIMIT":   strconv.FormatInt(c.MemoryMB, 10),
	}
	if c.MemoryMaxMB > 0 {
		env["NOMAD_MEMORY_MAX_LIMIT"] = strconv.FormatInt(c.MemoryMaxMB, 10)
	}
	for _, port := range c.Ports {
		maps.Copy(env, portEnv(port))
	}
	maps.Copy(env, c.Env)
	return env
}

// portEnv names a port to the task: inside a network namespace by the port it is mapped to.
func portEnv(port plugin.Port) map[string]string {
	inside := port.To
	if inside <= 0 {
		inside = port.Host
	}
	label := strings.Map(envChar, port.Label)
	host := strconv.Itoa(int(port.Host))
	return map[string]string{
		"NOMAD_PORT_" + label:      strconv.Itoa(int(inside)),
		"NOMAD_IP_" + label:        port.HostIP,
		"NOMAD_ADDR_" + label:      port.HostIP + ":" + host,
		"NOMAD_HOST_PORT_" + label: host,
		"NOMAD_HOST_IP_" + label:   port.HostIP,
		"NOMAD_HOST_ADDR_" + label: port.HostIP + ":" + host,
	}
}

// envChar replaces what may not stand in the name of an environment variable.
func envChar(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_':
		return r
	default:
		return '_'
	}
}

// Destroy ends the collectors, unmounts what was mounted and removes the folders. The task must be destroyed before.
func (a *Alloc) Destroy() error {
	var errs []error
	if a.logs != nil {
		errs = append(errs, a.logs.Close())
	}
	if a.tmpfs != "" {
		if err := unix.Unmount(a.tmpfs, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", a.tmpfs, err))
		}
		a.tmpfs = ""
	}
	if err := errors.Join(errs...); err != nil {
		// Removing below a mount that is still there would empty it.
		return err
	}
	return os.RemoveAll(a.config.Dir)
}

// newUUID returns a random id in the form of an allocation's.
func newUUID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

package driver

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// stateVersion is raised when a field changes its meaning; fields may be added without.
const stateVersion = 1

// taskState is all that RecoverTask can rely on: after an agent's restart the task's configuration is not there. The agent
// keeps it as the driver state, the container in a label for a StartTask that is sent again.
type taskState struct {
	Version     int       `codec:"version"`
	ContainerID string    `codec:"container_id"`
	StartedAt   time.Time `codec:"-"`
	// StartedNano is StartedAt in nanoseconds since 1970, since the encoding has no time.
	StartedNano int64  `codec:"started"`
	StopSignal  string `codec:"stop_signal"`
	Image       string `codec:"image"`
	ImageDigest string `codec:"image_digest"`
	// CgroupsPath is relative to the root of each hierarchy.
	CgroupsPath string `codec:"cgroup"`
	// FilesDir is the folder of the files that the driver itself made for the task.
	FilesDir string `codec:"files"`
	// Runtime is the shim's full name.
	Runtime string `codec:"runtime"`
}

func (s taskState) encode() ([]byte, error) {
	s.Version = stateVersion
	s.StartedNano = s.StartedAt.UnixNano()
	encoded, err := plugin.EncodeState(s)
	if err != nil {
		return nil, fmt.Errorf("encode task state: %w", err)
	}
	return encoded, nil
}

func decodeState(encoded []byte) (taskState, error) {
	var state taskState
	if err := plugin.DecodeState(encoded, &state); err != nil {
		return taskState{}, fmt.Errorf("decode task state: %w", err)
	}
	if state.Version != stateVersion {
		return taskState{}, fmt.Errorf("decode task state: version %d is not known to this driver", state.Version)
	}
	state.StartedAt = time.Unix(0, state.StartedNano)
	return state, nil
}

// Labels of a container. The first is docker's on Nomad, so that tools for those find ours too.
const (
	labelPrefix  = "com.hashicorp.nomad."
	labelAllocID = labelPrefix + "alloc_id"
	labelTaskID  = labelPrefix + "task_id"
	labelState   = "nomad-promptflow/state"
	// labelNode is the id of the agent's node, on everything that is made for a container: see [collector].
	labelNode = "nomad-promptflow/node"
	// labelKept is on containers that stay after their tasks for a look, labelRemoveAfter on those that do so for a while.
	labelKept        = "nomad-promptflow/kept"
	labelRemoveAfter = "nomad-promptflow/remove-after"
)

// containerLabels are the task's own labels, those of extra that say what the task is, and over them those by which the
// driver finds its containers.
func containerLabels(config *plugin.TaskConfig, own map[string]string, extra []string, state []byte) map[string]string {
	labels := maps.Clone(own)
	if labels == nil {
		labels = map[string]string{}
	}
	for name, value := range map[string]string{
		"job_id": config.JobID, "job_name": config.JobName, "task_group_name": config.GroupName, "task_name": config.Name,
		"namespace": config.Namespace, "node_name": config.NodeName, "node_id": config.NodeID,
	} {
		if matchesAny(extra, name) && value != "" {
			labels[labelPrefix+name] = value
		}
	}
	labels[labelAllocID] = config.AllocID
	labels[labelTaskID] = config.ID
	maps.DeleteFunc(labels, func(name, value string) bool { return len(name)+len(value) > maxLabel })
	labels[labelState] = base64.StdEncoding.EncodeToString(state)
	return labels
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		matched, err := path.Match(pattern, name)
		return err == nil && matched
	})
}

// stateOfLabels reads back what containerLabels wrote.
func stateOfLabels(labels map[string]string) ([]byte, error) {
	encoded, err := base64.StdEncoding.DecodeString(labels[labelState])
	if err != nil {
		return nil, fmt.Errorf("read container label %s: %w", labelState, err)
	}
	return encoded, nil
}

// containerID is the name of a task's container. A task id has slashes and may be longer than the 76 characters of a
// containerd name, so it is hashed; the same task always gets the same name.
func containerID(taskID string) string {
	sum := sha256.Sum256([]byte(taskID))
	return "pf-" + hex.EncodeToString(sum[:16])
}

package spec

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultPath is what docker gives a container whose image and task say nothing.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func buildProcess(task Task, host Host) (*specs.Process, error) {
	args, err := Args(task)
	if err != nil {
		return nil, err
	}
	cwd, err := workDir(task)
	if err != nil {
		return nil, err
	}
	rights := task.Capabilities
	if task.Privileged {
		rights = host.Capabilities
	}
	oomScoreAdj := task.Resources.OOMScoreAdj
	process := &specs.Process{
		Terminal:        task.TTY,
		Args:            slices.Concat(task.Init, args),
		Cwd:             cwd,
		Env:             task.Env,
		User:            task.User.spec(),
		Capabilities:    capabilities(task.User, rights),
		NoNewPrivileges: task.NoNewPrivileges,
		ApparmorProfile: task.ApparmorProfile,
		Rlimits:         task.Rlimits,
	}
	if oomScoreAdj != 0 {
		process.OOMScoreAdj = &oomScoreAdj
	}
	return process, nil
}

// Args is the command line of the container. An entrypoint of the task replaces the image's and drops the image's
// command with it; a command of the task, with its args, replaces the image's command; args alone do so too.
func Args(task Task) ([]string, error) {
	entrypoint, command := task.Image.Entrypoint, task.Image.Cmd
	if len(task.Entrypoint) > 0 {
		entrypoint, command = task.Entrypoint, nil
	}
	switch {
	case task.Command != "":
		command = append([]string{task.Command}, task.Args...)
	case len(task.Args) > 0:
		command = task.Args
	}
	args := slices.Concat(entrypoint, command)
	if len(args) == 0 {
		return nil, errors.New(`build spec: the image has neither entrypoint nor command: set "command"`)
	}
	return args, nil
}

func workDir(task Task) (string, error) {
	dir := task.WorkDir
	if dir == "" {
		dir = task.Image.WorkingDir
	}
	if dir == "" {
		return "/", nil
	}
	if !path.IsAbs(dir) {
		return "", fmt.Errorf("build spec: work_dir %q: must be absolute", dir)
	}
	return path.Clean(dir), nil
}

// Env is the environment made of the image's and of layers over it, each winning over those before it. It is sorted, so
// that the same task gives the same specification.
func Env(image []string, layers ...map[string]string) []string {
	merged := map[string]string{"PATH": defaultPath}
	for _, entry := range image {
		name, value, _ := strings.Cut(entry, "=")
		merged[name] = value
	}
	for _, layer := range layers {
		maps.Copy(merged, layer)
	}
	env := make([]string, 0, len(merged))
	for _, name := range slices.Sorted(maps.Keys(merged)) {
		env = append(env, name+"="+merged[name])
	}
	return env
}

package jobspecs

import (
	"fmt"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Task is what a job file says of its task for given variables: all that an agent would need of it, evaluated.
type Task struct {
	Job         string // the job's id, which is the runtime's name
	Group       string
	Name        string
	Driver      string
	Count       int           // instances
	CPU         int64         // MHz
	MemoryMB    int64         // MiB
	MemoryMaxMB int64         // MiB; 0: no more than MemoryMB
	KillTimeout time.Duration // between being asked to stop and being made to
	Ports       []string      // labels of the group's network
	Service     string        // name of the group's service
	Env         map[string]string
	// Config is the body of the task's config block, with every expression replaced by its value.
	Config string
}

// The blocks of a job file that are evaluated here. What is left in a Rest speaks to Nomad alone, and partly in names that only an
// agent knows.
type (
	fileBlocks struct {
		Variables []variable `hcl:"variable,block"`
		Jobs      hcl.Body   `hcl:",remain"`
	}
	jobBlocks struct {
		Job jobBlock `hcl:"job,block"`
	}
	jobBlock struct {
		Label string     `hcl:"label,label"`
		ID    string     `hcl:"id"`
		Group groupBlock `hcl:"group,block"`
		Rest  hcl.Body   `hcl:",remain"`
	}
	groupBlock struct {
		Name    string       `hcl:"name,label"`
		Count   int          `hcl:"count"`
		Network networkBlock `hcl:"network,block"`
		Service serviceBlock `hcl:"service,block"`
		Task    taskBlock    `hcl:"task,block"`
		Rest    hcl.Body     `hcl:",remain"`
	}
	networkBlock struct {
		Ports []portBlock `hcl:"port,block"`
		Rest  hcl.Body    `hcl:",remain"`
	}
	portBlock struct {
		Label string   `hcl:"label,label"`
		Rest  hcl.Body `hcl:",remain"`
	}
	serviceBlock struct {
		Name string   `hcl:"name"`
		Rest hcl.Body `hcl:",remain"`
	}
	taskBlock struct {
		Name        string            `hcl:"name,label"`
		Driver      string            `hcl:"driver"`
		KillTimeout string            `hcl:"kill_timeout"`
		Env         map[string]string `hcl:"env"`
		Config      configBlock       `hcl:"config,block"`
		Resources   resourcesBlock    `hcl:"resources,block"`
		Rest        hcl.Body          `hcl:",remain"`
	}
	configBlock struct {
		Body hcl.Body `hcl:",remain"`
	}
	resourcesBlock struct {
		CPU       int64    `hcl:"cpu"`
		Memory    int64    `hcl:"memory"`
		MemoryMax int64    `hcl:"memory_max"`
		Rest      hcl.Body `hcl:",remain"`
	}
)

// Task evaluates the job file. Vars are values of its variables, written as behind `nomad job run -var name=`; those that are missing
// have their defaults. An error names every variable that has a wrong value, with what it may be.
func (j Job) Task(vars map[string]string) (Task, error) {
	file, diags := hclsyntax.ParseConfig(j.source, j.file, hcl.InitialPos)
	if diags.HasErrors() {
		return Task{}, fmt.Errorf("parse job %s: %w", j.file, diags)
	}
	var blocks fileBlocks
	if diags := gohcl.DecodeBody(file.Body, nil, &blocks); diags.HasErrors() {
		return Task{}, fmt.Errorf("read variables of job %s: %w", j.file, diags)
	}
	values, err := evaluate(blocks.Variables, vars)
	if err != nil {
		return Task{}, fmt.Errorf("evaluate job %s: %w", j.file, err)
	}
	ctx := &hcl.EvalContext{Variables: map[string]cty.Value{"var": cty.ObjectVal(values)}, Functions: functions}
	var jobs jobBlocks
	if diags := gohcl.DecodeBody(blocks.Jobs, ctx, &jobs); diags.HasErrors() {
		return Task{}, fmt.Errorf("evaluate job %s: %w", j.file, diags)
	}
	task, err := jobs.Job.task(ctx)
	if err != nil {
		return Task{}, fmt.Errorf("evaluate job %s: %w", j.file, err)
	}
	return task, nil
}

func (j *jobBlock) task(ctx *hcl.EvalContext) (Task, error) {
	group, task := j.Group, j.Group.Task
	killTimeout, err := time.ParseDuration(task.KillTimeout)
	if err != nil {
		return Task{}, fmt.Errorf("read kill_timeout: %w", err)
	}
	config, err := render(task.Config.Body, ctx)
	if err != nil {
		return Task{}, fmt.Errorf("read config of task %q: %w", task.Name, err)
	}
	var ports []string
	for _, port := range group.Network.Ports {
		ports = append(ports, port.Label)
	}
	return Task{
		Job: j.ID, Group: group.Name, Name: task.Name, Driver: task.Driver, Count: group.Count,
		CPU: task.Resources.CPU, MemoryMB: task.Resources.Memory, MemoryMaxMB: task.Resources.MemoryMax,
		KillTimeout: killTimeout, Ports: ports, Service: group.Service.Name, Env: task.Env, Config: config,
	}, nil
}

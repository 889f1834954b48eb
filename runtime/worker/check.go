package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Checker validates the Python parts of one flow. Its process never runs the flow's code: that is done in a child of it, one for
// each check, which finds imported already what the flow takes from outside its folder. It may be used by many goroutines; checks
// are done one after the other.
type Checker struct {
	manager *Manager

	mu      sync.Mutex // held by the check that is under way
	process *process
	cold    bool // what the flow imports is no good to fork from

	end    sync.Mutex
	closed bool
	ending func() // ends the process that is in use
}

// CheckSpec is what to check. The flow's folder may change from check to check.
type CheckSpec struct {
	Dir           string
	Env           map[string]string
	Connections   json.RawMessage // as FlowSpec has them
	MessageFormat string
	Jobs          []CheckJob
	// Timeout bounds each job; default 60 s (prompt flow's FLOW_TOOLS_JSON_GEN_TIMEOUT).
	Timeout time.Duration
}

// CheckJob is one thing to check; the fields of its kind are set.
type CheckJob struct {
	Kind   string            // CheckTemplate, CheckNode …
	Text   string            // of a template
	Node   *value.Dict       // a node's mapping as FlowSpec.Nodes has it
	Source string            // of a tool's metadata: path of the script or template
	Type   string            // of a tool's metadata: python, llm, prompt
	Keys   []string          // ids of package tools
	Lines  []RequirementLine // of a requirements file
}

// The kinds of jobs.
const (
	CheckTemplate     = "template"
	CheckNode         = "node"
	CheckMeta         = "meta"
	CheckPackages     = "packages"
	CheckRequirements = "requirements"
)

// RequirementLine is a line of a requirements file that names a package.
type RequirementLine struct {
	Line int    `json:"line"`
	Text string `json:"text"`
}

// CheckResult is what came of a job. Crash and Failure are for jobs that could not be done; else the fields of the job's kind are set.
type CheckResult struct {
	Crash   string `json:"crash"`   // how the process ended under the job
	Failure string `json:"failure"` // a Python exception that is nobody's mistake

	// Of a template.
	Variables []TemplateVariable `json:"variables"`
	Class     string             `json:"class"` // Jinja2's exception, with its message and line
	Message   string             `json:"message"`
	Line      int                `json:"line"`

	// Of a node.
	Tool     *Tool                 `json:"tool"`
	Inputs   map[string]Definition `json:"inputs"` // the tool's, with those of its class's __init__
	Init     []string              `json:"init"`   // inputs of __init__
	Function *Place                `json:"function"`
	Files    []string              `json:"files"` // of the flow's folder that loading has read
	Cause    *Cause                `json:"cause"`
	Place    *Place                `json:"place"` // of Tool.Error, where it is in the flow's files
	Outline  []Outline             `json:"outline"`

	// Of metadata.
	Meta  json.RawMessage `json:"meta"`
	Error *api.Error      `json:"error"` // also of a template

	// Of requirements.
	Findings []RequirementFinding `json:"findings"`
}

// TemplateVariable is an undeclared variable of a template and where it stands first; 0 where that is not known.
type TemplateVariable struct {
	Variable
	Line   int `json:"line"`
	Column int `json:"column"`
}

// Definition is an input of a tool as prompt flow derives it from a signature.
type Definition struct {
	Type    []string `json:"type"`
	Default any      `json:"default"`
	Enum    []any    `json:"enum"`
}

// Place is a place in a file of the flow. A column of 0 is not known.
type Place struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Name   string `json:"name"` // of the function there
}

// Cause is the innermost exception of an error; Name is the module that an ImportError is about.
type Cause struct {
	Class   string `json:"class"`
	Message string `json:"message"`
	Name    string `json:"name"`
}

// Outline is a function of a script by its text alone.
type Outline struct {
	Name   string `json:"name"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Tool   bool   `json:"tool"` // decorated as one
}

// RequirementFinding is a line of a requirements file that this Python does not meet.
type RequirementFinding struct {
	Line      int    `json:"line"`
	Kind      string `json:"kind"` // missing, version, invalid
	Name      string `json:"name"`
	Wanted    string `json:"wanted"`
	Installed string `json:"installed"`
	Text      string `json:"text"`   // of an invalid one
	Detail    string `json:"detail"` // of an invalid one
}

// NewChecker returns a checker, which takes a process when it is first needed. Close it, or the manager.
func (m *Manager) NewChecker() *Checker {
	c := &Checker{manager: m}
	m.mu.Lock()
	defer m.mu.Unlock()
	c.closed = m.closed
	m.checkers[c] = struct{}{}
	return c
}

// Check does the jobs and returns a result for each. It fails when no process could be had, or when ctx ended.
func (c *Checker) Check(ctx context.Context, spec CheckSpec) ([]CheckResult, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, err := c.ask(ctx, spec)
	var gone *crash
	if errors.As(err, &gone) && ctx.Err() == nil { // it ended after the last check
		r, err = c.ask(ctx, spec)
	}
	if err == nil && r.Error != nil {
		err = finish(r.Error)
	}
	if err != nil {
		c.drop()
		return nil, fmt.Errorf("check flow: %w", err)
	}
	var results []CheckResult
	if err := json.Unmarshal(r.parts["results"], &results); err != nil {
		return nil, fmt.Errorf("decode results of a check: %w", err)
	}
	if len(results) != len(spec.Jobs) {
		return nil, fmt.Errorf("check flow: %d results for %d jobs", len(results), len(spec.Jobs))
	}
	for i := range results {
		if t := results[i].Tool; t != nil {
			_ = finish(t.Error)
		}
		_ = finish(results[i].Error)
	}
	return results, nil
}

// ask sends the jobs to the living process, or to a new one.
func (c *Checker) ask(ctx context.Context, spec CheckSpec) (*reply, error) {
	p, err := c.take(ctx)
	if err != nil {
		return nil, err
	}
	head, parts, err := c.encode(spec)
	if err != nil {
		return nil, err
	}
	return p.roundTrip(ctx, head, parts...)
}

func (c *Checker) encode(spec CheckSpec) (map[string]any, []part, error) {
	dir, err := filepath.Abs(spec.Dir)
	if err != nil {
		return nil, nil, err
	}
	if spec.Timeout <= 0 {
		spec.Timeout = time.Minute
	}
	connections := []byte(spec.Connections)
	if len(connections) == 0 {
		connections = []byte("{}")
	}
	jobs := make([]any, len(spec.Jobs))
	for i, j := range spec.Jobs {
		jobs[i] = j.encode()
	}
	head := map[string]any{
		"op": "check", "dir": dir, "env": allowedVariables(spec.Env), "message_format": spec.MessageFormat,
		"timeout": spec.Timeout.Seconds(), "warm": !c.cold,
	}
	return head, []part{{"connections", connections}, {"jobs", value.Encode(jobs)}}, nil
}

func (j CheckJob) encode() *value.Dict {
	d := value.NewDict()
	d.Set("kind", j.Kind)
	switch j.Kind {
	case CheckTemplate:
		d.Set("text", j.Text)
	case CheckNode:
		d.Set("node", j.Node)
	case CheckMeta:
		d.Set("source", j.Source)
		d.Set("type", j.Type)
	case CheckPackages:
		keys := make([]any, len(j.Keys))
		for i, k := range j.Keys {
			keys[i] = k
		}
		d.Set("keys", keys)
	case CheckRequirements:
		lines := make([]any, len(j.Lines))
		for i, l := range j.Lines {
			line := value.NewDict()
			line.Set("line", int64(l.Line))
			line.Set("text", l.Text)
			lines[i] = line
		}
		d.Set("lines", lines)
	}
	return d
}

// take returns the living process, or a new one. c.mu is held.
func (c *Checker) take(ctx context.Context) (*process, error) {
	if c.process != nil && c.process.alive() {
		return c.process, nil
	}
	c.cold = c.cold || c.process != nil
	c.drop()
	p, err := c.manager.take(ctx)
	if err != nil {
		return nil, err
	}
	c.end.Lock()
	defer c.end.Unlock()
	if c.closed {
		p.stop()
		return nil, ErrClosed
	}
	c.process, c.ending = p, func() { p.kill("its checker was closed") }
	return p, nil
}

// drop ends the process. c.mu is held.
func (c *Checker) drop() {
	if c.process != nil {
		c.process.stop()
	}
	c.process = nil
}

// Close ends the process; a check that is under way fails. It returns when the process has ended.
func (c *Checker) Close() {
	c.end.Lock()
	c.closed = true
	if c.ending != nil {
		c.ending()
	}
	c.end.Unlock()
	c.mu.Lock()
	c.drop()
	c.mu.Unlock()
	c.manager.mu.Lock()
	delete(c.manager.checkers, c)
	c.manager.mu.Unlock()
}

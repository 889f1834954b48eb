// Package validate finds everything that is wrong with a flow, all at once and each with its place: what prompt flow would refuse, now
// or while the flow runs, under its error class; and what it would silently pass over, as warnings.
//
// A [Validator] belongs to one flow folder. [Validator.Check] may be called again when files have changed, and then does anew only
// what the change can have touched. Schema, references, types and simple templates need nothing but Go; the Python parts go
// to a [Python], without which they are named as unchecked. The rules are those of the packages that run flows, which are asked
// wherever they can be; this package runs no node.
package validate

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/media"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// Python checks what needs Python; *worker.Checker is one.
type Python interface {
	Check(ctx context.Context, spec worker.CheckSpec) ([]worker.CheckResult, error)
}

// Config says what to validate and with what.
type Config struct {
	Dir    string // the flow's folder
	File   string // path of the flow's file in it; empty: the one there is
	Python Python // nil: what needs Python stays unchecked
	// Connections returns the connections there are, given the flow's environment; nil: they are not known and not checked.
	Connections func(environment connection.Lookup) (*connection.Set, error)
	// Environment is what a submission would set beyond the flow's own variables.
	Environment map[string]string
	Timeout     time.Duration // for each Python tool; default the checker's
}

// Validator validates one flow folder again and again. Its calls must not overlap.
type Validator struct {
	config Config
	memory memory
}

// New returns a validator of a folder.
func New(config Config) *Validator {
	if dir, err := filepath.EvalSymlinks(config.Dir); err == nil {
		config.Dir = dir // as Python shows it
	}
	return &Validator{config: config}
}

// Check validates the folder as it is now; tools asks for the metadata of the flow's tools too. The error is for what kept it from being
// checked; what is wrong with the flow is in the validation.
func (v *Validator) Check(ctx context.Context, tools bool) (*api.Validation, error) {
	began := time.Now()
	root, err := os.OpenRoot(v.config.Dir)
	if err != nil {
		return nil, fmt.Errorf("validate flow: %w", err)
	}
	defer root.Close()
	c := &checking{config: v.config, memory: &v.memory, folder: newFolder(root.FS())}
	c.report.folder = c.folder
	if err := c.folder.list(); err != nil {
		return nil, fmt.Errorf("validate flow: %w", err)
	}
	c.read()
	if err := c.askPython(ctx, tools); err != nil {
		return nil, fmt.Errorf("validate flow: %w", err)
	}
	c.judge(ctx)
	out := &api.Validation{
		Result: api.ResultSucceeded, Problems: c.report.sorted(), Unchecked: c.unchecked, Tools: c.tools, ToolErrors: c.toolErrors(),
		Reused: c.reused, Checked: c.checked,
	}
	if out.Failed(false) {
		out.Result = api.ResultFailed
	}
	out.Duration = time.Since(began).Seconds()
	return out, nil
}

// checking is one call of Check.
type checking struct {
	config      Config
	memory      *memory
	folder      *folder
	report      report
	draft       *flow.Draft
	units       []*unit
	connections *connection.Set // nil: not known
	environment map[string]string
	unchecked   []string
	tools       json.RawMessage
	python      answers
	metaErrors  []metaError
	scripts     map[string]bool // mistakes in scripts that have been reported
	reused      int
	checked     int
}

// read reads the flow past its mistakes.
func (c *checking) read() {
	c.draft = flow.Inspect(c.folder.files, flow.Options{File: c.config.File})
	for _, err := range c.draft.Errors {
		c.report.failure(err, "", nil)
	}
	if c.draft.Flow == nil {
		return
	}
	c.environment = c.draft.Flow.Environment()
	for name, text := range c.config.Environment {
		c.environment[name] = text
	}
	c.units = unitsOf(c.draft)
	if c.config.Connections == nil {
		c.unchecked = append(c.unchecked, "connections: a runtime knows which there are")
		return
	}
	set, err := c.config.Connections(lookup(c.environment))
	if err != nil {
		c.unchecked = append(c.unchecked, "connections: "+err.Error())
		return
	}
	c.connections = set
}

func lookup(environment map[string]string) connection.Lookup {
	return func(name string) (string, bool) {
		if text, ok := environment[name]; ok {
			return text, true
		}
		return os.LookupEnv(name)
	}
}

// judge reports what the flow's text and Python's answers show.
func (c *checking) judge(ctx context.Context) {
	if c.draft.Document != nil {
		c.schema()
	}
	if c.draft.Flow == nil {
		return
	}
	c.messageFormat()
	c.graph()
	c.references()
	c.inputs()
	c.outputs()
	c.unused()
	c.variants()
	c.requirements()
	for _, u := range c.units {
		c.unit(ctx, u)
	}
	c.reportMeta()
}

// messageFormat checks how the flow spells images.
func (c *checking) messageFormat() {
	format := c.draft.Flow.MessageFormat
	if _, err := media.ParseFormat(format.Name); err != nil {
		c.report.failure(format.At(api.AsError(err)), "Write 'basic' or 'openai-vision'.", nil)
	}
}

// unit is a node, or one of its variants, to be checked by itself.
type unit struct {
	*flow.Node
	variant string // empty: the node as the flow has it
	fields  fields
}

func unitsOf(d *flow.Draft) []*unit {
	places := nodesByPlace(d)
	var units []*unit
	seen := map[flow.Place]bool{}
	add := func(n *flow.Node, variant string) {
		if seen[n.Place] {
			return
		}
		seen[n.Place] = true
		units = append(units, &unit{Node: n, variant: variant, fields: fields{places[n.Place]}})
	}
	for _, v := range d.Variants {
		if v.Default { // it stands in the flow already, under its own place
			add(v.Node, v.ID)
		}
	}
	for _, n := range d.Flow.Nodes {
		add(n, "")
	}
	for _, v := range d.Variants {
		add(v.Node, v.ID)
	}
	return units
}

// literals are a node's inputs that are no references.
func (u *unit) literals() *value.Dict {
	d := value.NewDict()
	for _, in := range u.Inputs {
		if in.Kind == flow.Literal {
			d.Set(in.Name, in.Literal)
		}
	}
	return d
}

// input returns an input of the node by name, nil when it has none.
func (u *unit) input(name string) *flow.NodeInput {
	for i := range u.Inputs {
		if u.Inputs[i].Name == name {
			return &u.Inputs[i]
		}
	}
	return nil
}

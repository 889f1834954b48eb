// Package run executes submissions: a flow's lines with their nodes in parallel, then the aggregation over the completed lines,
// with the records that prompt flow keeps of runs and nodes.
//
// [Load] makes an [Executor] of a flow folder: it reads the flow, resolves every node's tool and checks the graph, in prompt
// flow's order. An Executor runs many submissions at once. A flow that fails is a result with an error, not a Go error. Python
// runs behind the small interfaces of this package ([Workers]), which package worker implements.
package run

import (
	"context"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/media"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/tool"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

const (
	// nodeConcurrency is how many nodes of a line run at once (prompt flow's DEFAULT_CONCURRENCY_FLOW). Prompt flow takes 2 in a
	// batch to spare threads; here nodes cost a goroutine, and outputs do not depend on it.
	nodeConcurrency = 16
	// DefaultLines is how many lines of a batch run at once.
	DefaultLines = 16
	// DefaultBatchLineTimeout bounds a line of a batch (prompt flow's LINE_TIMEOUT_SEC).
	DefaultBatchLineTimeout = 600 * time.Second
)

// Config says which flow to load and with what.
type Config struct {
	Digest  string // of the bundle, for logs and results
	Dir     string // the flow's folder, which workers read too
	Flow    flow.Options
	Workers Workers
	// Init are the arguments of a flex flow's class, or what overrides a prompty file's front matter; nil means none.
	Init *value.Dict
	// Serving says that the flow is served: a flex flow's values are then converted by its YAML alone, not by its code, and a
	// prompty file's sample does not stand in for absent inputs.
	Serving bool
	// Environment is what the flow sees beyond the process's environment: its own variables and the submission's.
	Environment func(f *flow.Flow) map[string]string
	// ConnectionsFile holds the connections; empty means there are none.
	ConnectionsFile string
	Client          *tool.Client // sends llm nodes' requests; nil: tool.DefaultClient
	Logger          hclog.Logger // nil: none
	Lines           int          // lines of a batch at once; 0: DefaultLines
	// Node is the one node to load, for RunNode; empty: all of them.
	Node string
	// Images fetches images from URLs; nil refuses them.
	Images *media.Fetcher
	// AnyFile allows callers to name image files anywhere, not only in the flow's folder.
	AnyFile bool
	// LineTimeout bounds a line; 0 means none for single lines and DefaultBatchLineTimeout for lines of a batch.
	LineTimeout time.Duration
	// NodeTimeout bounds a node; 0 means none.
	NodeTimeout time.Duration
}

// Executor is a flow that is ready to run. It may be used by many goroutines at once.
type Executor struct {
	config  Config
	log     hclog.Logger
	flow    *flow.Flow
	normal  []*flow.Node
	reduce  []*flow.Node
	single  *flow.Node // of Config.Node
	all     []*flow.Node
	steps   map[string]step
	media   *media.Loader
	script  *worker.Script // of a flow without nodes that runs in workers
	prompty *tool.Prompty  // of a prompty file that runs here
	python  *python
	closing sync.Once
}

// Load loads a flow. The error is *api.Error when the flow is at fault.
func Load(ctx context.Context, config Config) (*Executor, error) {
	x := &Executor{config: config, log: config.Logger, steps: map[string]step{}}
	if x.log == nil {
		x.log = hclog.NewNullLogger()
	}
	if x.config.Lines <= 0 {
		x.config.Lines = DefaultLines
	}
	root, err := os.OpenRoot(config.Dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if x.flow, err = flow.LoadWith(root.FS(), config.Flow); err != nil {
		return nil, err
	}
	if err := x.prepare(ctx, root.FS()); err != nil {
		x.Close()
		return nil, err
	}
	return x, nil
}

// prepare resolves the tools and then checks the graph, so that tool errors win as they do in prompt flow.
func (x *Executor) prepare(ctx context.Context, dir fs.FS) error {
	environment := map[string]string{}
	if x.config.Environment != nil {
		environment = x.config.Environment(x.flow)
	}
	if err := x.readFormat(); err != nil {
		return err
	}
	if err := x.selectNode(); err != nil {
		return err
	}
	connections, err := connection.Load(x.config.ConnectionsFile, lookup(environment))
	if err != nil {
		return err
	}
	resolveReferences(environment, connections)
	x.python = newPython(x.config, x.flow, x.media.Format, environment, connections)
	switch x.flow.Form {
	case flow.Prompty:
		return x.preparePrompty(ctx, dir, environment, connections)
	case flow.Flex:
		return x.prepareScript(ctx)
	}
	r := resolver{x: x, dir: dir, connections: connections}
	if err := r.resolve(ctx); err != nil {
		return err
	}
	if x.single != nil {
		return nil // the rest of the flow may be wrong
	}
	checked, dropped, err := x.flow.Check()
	if err != nil {
		return err
	}
	for _, out := range dropped {
		x.log.Warn("output references an aggregation node and takes no effect", "output", out.Name, "node", out.Reference.Name)
	}
	x.flow = checked
	for _, n := range checked.Nodes {
		if n.Aggregation {
			x.reduce = append(x.reduce, n)
		} else {
			x.normal = append(x.normal, n)
		}
	}
	return nil
}

// readFormat prepares the loading of images.
func (x *Executor) readFormat() error {
	format, err := media.ParseFormat(x.flow.MessageFormat.Name)
	if err != nil {
		return x.flow.MessageFormat.At(api.AsError(err))
	}
	files := media.Below(x.config.Dir)
	if x.config.AnyFile {
		files = media.Anywhere(x.config.Dir)
	}
	x.media = &media.Loader{Format: format, Files: files, Fetcher: x.config.Images}
	return nil
}

// Format returns the format in which the flow's images are spelled.
func (x *Executor) Format() media.Format { return x.media.Format }

// Dir returns the flow's folder.
func (x *Executor) Dir() string { return x.config.Dir }

// Flow returns the flow, checked.
func (x *Executor) Flow() *flow.Flow { return x.flow }

// Close ends the flow's workers.
func (x *Executor) Close() {
	x.closing.Do(func() {
		if x.python != nil {
			x.python.close()
		}
	})
}

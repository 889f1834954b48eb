package command

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/posener/complete"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
)

// defaultAddress is where dev and gateway listen.
const defaultAddress = "http://127.0.0.1:8088"

// maxLine is the longest line of a data file.
const maxLine = 64 << 20

type runCommand struct {
	meta
}

// Synopsis implements cli.Command.
func (c *runCommand) Synopsis() string { return "Run a flow on a runtime" }

// Help implements cli.Command.
func (c *runCommand) Help() string {
	return strings.TrimSpace(`
Usage: nomad-promptflow run FLOW [options]

  Runs the flow in the folder FLOW, or the flow file FLOW (*.yaml, *.yml,
  *.prompty), on a runtime and prints its outputs, its metrics and how long
  every node took. The flow is handed in if the runtime does not have it yet,
  with what its additional_includes name.

  The exit code is 0 when the flow (every line of it, with -data) completed.

Options:

  -input=NAME=VALUE
    An input of the flow; may be given many times. Values are text, which the
    runtime converts to the input's type, as "pf flow test --inputs" does.

  -inputs=FILE
    A JSON file with an object of inputs ("-" reads standard input).

  -data=FILE
    A JSONL file ("-" reads standard input): each line is an object of inputs.
    The flow runs once for every line, then its aggregation nodes run once.

  -variant='${NODE.VARIANT}'
    Run this variant of the node instead of its default one.

  -init=NAME=VALUE
    An argument for the class of a flex flow, or what overrides a prompty
    file's front matter; may be given many times. A value that is JSON is
    taken as that, any other as text. Without "=" it names a JSON file with
    an object of such arguments.

  -env=NAME=VALUE
    An environment variable for the flow; may be given many times.

  -runtime=NAME
    The runtime to run on. PROMPTFLOW_RUNTIME; default: the gateway's only one.

  -address=URL
    The gateway, http://HOST:PORT or unix:PATH. PROMPTFLOW_ADDR; default
    ` + defaultAddress + `.

  -direct
    The address is that of a runtime itself, not of a gateway.

  -token-file=FILE
    A file with the token to send. PROMPTFLOW_TOKEN_FILE.

  -node=NAME
    Run this node of the flow alone. Inputs are then named as the node names
    them, or by what they refer to: -input=inputs.text=… for a flow input,
    -input=classify.output=… for the output of another node.

  -stream
    Print outputs that stream piece by piece as they are made, and the lines of
    -data as they end.

  -interactive
    Talk with a chat flow: every line that is typed is sent with what was said
    before, and the answer is printed as it comes. Ctrl-C or the end of the
    input ends the chat.

  -output-dir=DIR
    Write images among the outputs to files in this folder.

  -timeout=DURATION
    Give up after this long. Default: never.

  -line-timeout=DURATION
    Stop a line that takes longer; it fails. Default: the runtime's bound.

  -node-timeout=DURATION
    Stop a node that takes longer; its line fails. Default: the runtime's bound.

  -json
    Print the whole result as JSON: outputs, metrics and records of all runs.
`)
}

// AutocompleteArgs implements cli.CommandAutocomplete.
func (c *runCommand) AutocompleteArgs() complete.Predictor {
	return complete.PredictOr(complete.PredictDirs("*"), complete.PredictFiles("*.prompty"), complete.PredictFiles("*.yaml"))
}

// AutocompleteFlags implements cli.CommandAutocomplete.
func (c *runCommand) AutocompleteFlags() complete.Flags {
	return complete.Flags{
		"-input": complete.PredictAnything, "-inputs": complete.PredictFiles("*.json"), "-data": complete.PredictFiles("*.jsonl"),
		"-node": complete.PredictAnything, "-stream": complete.PredictNothing, "-interactive": complete.PredictNothing, "-output-dir": complete.PredictDirs("*"),
		"-variant": complete.PredictAnything, "-init": complete.PredictFiles("*.json"),
		"-line-timeout": complete.PredictAnything, "-node-timeout": complete.PredictAnything,
		"-env": complete.PredictAnything, "-runtime": complete.PredictAnything, "-address": complete.PredictAnything,
		"-direct": complete.PredictNothing, "-token-file": complete.PredictFiles("*"), "-timeout": complete.PredictAnything,
		"-json": complete.PredictNothing,
	}
}

// runOptions are the options of a run.
type runOptions struct {
	flow, inputsFile, data, variant, node, outputDir, runtime, address, tokenFile string

	inputs, init, env                 repeated
	direct, json, stream, interactive bool
	timeout, lineTimeout, nodeTimeout time.Duration
}

// errUsage is wrapped by errors in what the caller typed.
var errUsage = errors.New("wrong usage")

// Run implements cli.Command.
func (c *runCommand) Run(args []string) int {
	var o runOptions
	set := c.flags("run")
	set.Var(&o.inputs, "input", "")
	set.StringVar(&o.inputsFile, "inputs", "", "")
	set.StringVar(&o.data, "data", "", "")
	set.StringVar(&o.variant, "variant", "", "")
	set.StringVar(&o.node, "node", "", "")
	set.BoolVar(&o.stream, "stream", false, "")
	set.BoolVar(&o.interactive, "interactive", false, "")
	set.StringVar(&o.outputDir, "output-dir", "", "")
	set.Var(&o.init, "init", "")
	set.DurationVar(&o.lineTimeout, "line-timeout", 0, "")
	set.DurationVar(&o.nodeTimeout, "node-timeout", 0, "")
	set.Var(&o.env, "env", "")
	set.StringVar(&o.runtime, "runtime", os.Getenv("PROMPTFLOW_RUNTIME"), "")
	set.StringVar(&o.address, "address", fromEnv("PROMPTFLOW_ADDR", defaultAddress), "")
	set.BoolVar(&o.direct, "direct", false, "")
	set.StringVar(&o.tokenFile, "token-file", os.Getenv("PROMPTFLOW_TOKEN_FILE"), "")
	set.DurationVar(&o.timeout, "timeout", 0, "")
	set.BoolVar(&o.json, "json", false, "")
	rest, code, ok := c.parse(set, c.Help(), args)
	if !ok {
		return code
	}
	if len(rest) != 1 {
		return c.usage("run", "takes one argument, the flow's folder or file; got %d", len(rest))
	}
	o.flow = rest[0]
	ctx, stop := untilInterrupted()
	defer stop()
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	code, err := c.run(ctx, &o)
	switch {
	case errors.Is(err, errUsage):
		return c.usage("run", "%s", err)
	case err != nil:
		c.fail(err)
		return exitFailure
	}
	return code
}

// run runs the flow once, or chats with it.
func (c *runCommand) run(ctx context.Context, o *runOptions) (int, error) {
	began := time.Now()
	if err := o.check(); err != nil {
		return 0, err
	}
	s, err := o.prepare(ctx, func(text string) { c.note("warning: %s", text) })
	if err != nil {
		return 0, err
	}
	if o.interactive {
		return c.chat(ctx, o, s)
	}
	live := liveOutput{out: c.stdout}
	var result *api.RunResult
	if o.stream {
		result, err = s.follow(ctx, live.see)
		live.end()
	} else {
		result, err = s.run(ctx)
	}
	if err != nil {
		return 0, err
	}
	if o.data != "" && result.Outputs == nil {
		// On the wire a list without members is left out; it is a batch all the same.
		result.Outputs = []json.RawMessage{}
	}
	if err := saveImages(result, o.outputDir, o.json); err != nil {
		return 0, err
	}
	return c.print(result, o.json, live.shown, time.Since(began)), nil
}

// check refuses options that do not go together.
func (o *runOptions) check() error {
	for _, pair := range []struct {
		wrong bool
		says  string
	}{
		{o.data != "" && (len(o.inputs) > 0 || o.inputsFile != ""), "-data goes without -input and -inputs"},
		{o.stream && o.json, "-stream goes without -json"},
		{o.interactive && (o.data != "" || o.node != "" || o.json), "-interactive goes without -data, -node and -json"},
		{o.node != "" && o.data != "", "-node goes without -data"},
	} {
		if pair.wrong {
			return fmt.Errorf("%w: %s", errUsage, pair.says)
		}
	}
	return nil
}

// submission is a run that is ready to be asked for.
type submission struct {
	request api.RunRequest
	packed  []byte
	client  *api.Client
	runtime string
	flow    *flow.Flow // nil: the runtime says what is wrong with it
}

func (s *submission) open() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(s.packed)), nil
}

// run hands the flow in where it is missing and runs it.
func (s *submission) run(ctx context.Context) (*api.RunResult, error) {
	return s.client.RunBundle(ctx, s.runtime, s.request, s.open)
}

// follow is run that tells see what happens.
func (s *submission) follow(ctx context.Context, see func(api.RunEvent) error) (*api.RunResult, error) {
	return s.client.FollowBundle(ctx, s.runtime, s.request, s.open, see)
}

// prepare packs the flow and finds the runtime.
func (o *runOptions) prepare(ctx context.Context, warn func(text string)) (*submission, error) {
	request, err := o.request()
	if err != nil {
		return nil, err
	}
	dir, file, err := flowPath(o.flow)
	if err != nil {
		return nil, err
	}
	s := &submission{request: request, flow: loadFlow(dir, file, o.variant)}
	s.request.FlowFile = file
	if err := o.complete(s, dir, warn); err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	if s.request.Flow, err = packFlow(ctx, dir, file, &packed, warn); err != nil {
		return nil, err
	}
	s.packed = packed.Bytes()
	s.client, s.runtime, err = o.target(ctx)
	return s, err
}

// complete puts into the submission what depends on the flow and its folder.
func (o *runOptions) complete(s *submission, dir string, warn func(text string)) error {
	if o.data != "" {
		return inlineLines(s.request.Lines, o.data)
	}
	inputs, err := inlineImages(s.request.Inputs, dir)
	if err != nil {
		return err
	}
	s.request.Inputs = inputs
	if o.node != "" {
		return s.nodeInputs(o.node, warn)
	}
	return nil
}

// target is whom to ask, and which runtime to ask for.
func (o *runOptions) target(ctx context.Context) (*api.Client, string, error) {
	return destination{o.address, o.runtime, o.tokenFile, o.direct}.client(ctx)
}

// request makes the submission, all but the flow's name.
func (o *runOptions) request() (api.RunRequest, error) {
	var request api.RunRequest
	inputs, err := keyValues("-input", o.inputs)
	if err != nil {
		return request, err
	}
	if request.EnvironmentVariables, err = keyValues("-env", o.env); err != nil {
		return request, err
	}
	if len(request.EnvironmentVariables) == 0 {
		request.EnvironmentVariables = nil
	}
	request.Variant = o.variant
	request.LineTimeout, request.NodeTimeout = o.lineTimeout.Seconds(), o.nodeTimeout.Seconds()
	if request.Init, err = initValues(o.init); err != nil {
		return request, err
	}
	if o.data != "" {
		request.Lines, err = readLines(o.data)
		return request, err
	}
	request.Inputs, err = mergeInputs(o.inputsFile, o.inputs, inputs)
	return request, err
}

// keyValues reads NAME=VALUE pairs.
func keyValues(flag string, pairs []string) (map[string]string, error) {
	values := map[string]string{}
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%w: %s %q: want NAME=VALUE", errUsage, flag, pair)
		}
		values[name] = value
	}
	return values, nil
}

// mergeInputs is the object of a file's inputs with those of the command line over them.
func mergeInputs(file string, pairs []string, values map[string]string) (json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	if file != "" {
		data, err := readFile(file)
		if err != nil {
			return nil, fmt.Errorf("read inputs: %w", err)
		}
		if err := checkObject(file, data); err != nil {
			return nil, err
		}
		if len(pairs) == 0 {
			return data, nil
		}
		if err := json.Unmarshal(data, &members); err != nil {
			return nil, fmt.Errorf("read inputs of %s: %w", file, err)
		}
	}
	for name, value := range values {
		encoded, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		members[name] = encoded
	}
	return json.Marshal(members)
}

func checkObject(name string, data []byte) error {
	if trimmed := bytes.TrimSpace(data); len(trimmed) == 0 || trimmed[0] != '{' {
		return fmt.Errorf("read inputs of %s: must be a JSON object of input names and values", name)
	}
	if err := api.CheckJSON(data); err != nil {
		return fmt.Errorf("read inputs of %s: not valid JSON: %w", name, err)
	}
	return nil
}

func readFile(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(name)
}

// readLines reads a JSONL file. Blank lines are passed over.
func readLines(name string) ([]json.RawMessage, error) {
	data, err := readFile(name)
	if err != nil {
		return nil, fmt.Errorf("read data: %w", err)
	}
	scanner := bufio.NewScanner(bytes.NewReader(data))
	scanner.Buffer(nil, maxLine)
	var lines []json.RawMessage
	for number := 1; scanner.Scan(); number++ {
		line := bytes.TrimSpace(scanner.Bytes())
		if len(line) == 0 {
			continue
		}
		if err := checkObject(fmt.Sprintf("%s, line %d", name, number), line); err != nil {
			return nil, err
		}
		lines = append(lines, append(json.RawMessage(nil), line...))
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read data of %s: %w", name, err)
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("read data of %s: there is no line in it; write one JSON object of inputs per line", name)
	}
	return lines, nil
}

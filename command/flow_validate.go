package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/posener/complete"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

type flowValidateCommand struct {
	meta
}

// Synopsis implements cli.Command.
func (c *flowValidateCommand) Synopsis() string { return "Find everything that is wrong with a flow" }

// Help implements cli.Command.
func (c *flowValidateCommand) Help() string {
	return strings.TrimSpace(`
Usage: nomad-promptflow flow validate FLOW [options]

  Validates the flow FLOW, a folder or a flow's file, on a runtime and prints all
  problems at once: schema, references, types, templates, Python tools, connections,
  requirements; each with its file, line and column, prompt flow's error class
  and what to do.

  Where no gateway answers and none was named, or with -local, everything is
  checked that needs no Python and no connections, and what was left out is said.

  The exit code is 0 without errors, 1 with errors or when the flow could not be
  validated, 2 for wrong usage.

Options:

  -strict
    Fail on warnings too.

  -watch
    Stay, and validate again whenever a file of the flow changes; only what
    changed is sent and checked. Ctrl-C ends it.

  -format=FORMAT
    text, json, or sarif (SARIF 2.1.0). Default text.

  -json
    Short for -format=json.

  -env=NAME=VALUE
    An environment variable for the flow; may be given many times.

  -local
    Ask no runtime.

` + destinationHelp + `

  -timeout=DURATION
    Give up after this long. Default: 5m; -watch goes on for ever.
`)
}

// destinationHelp describes the options that name a runtime.
const destinationHelp = `  -runtime=NAME
    The runtime to ask. PROMPTFLOW_RUNTIME; default: the gateway's only one.

  -address=URL
    The gateway, http://HOST:PORT or unix:PATH. PROMPTFLOW_ADDR; default
    ` + defaultAddress + `.

  -direct
    The address is that of a runtime itself, not of a gateway.

  -token-file=FILE
    A file with the token to send. PROMPTFLOW_TOKEN_FILE.`

// AutocompleteArgs implements cli.CommandAutocomplete.
func (c *flowValidateCommand) AutocompleteArgs() complete.Predictor {
	return complete.PredictDirs("*")
}

// AutocompleteFlags implements cli.CommandAutocomplete.
func (c *flowValidateCommand) AutocompleteFlags() complete.Flags {
	return complete.Flags{
		"-strict": complete.PredictNothing, "-watch": complete.PredictNothing, "-format": complete.PredictSet("text", "json", "sarif"),
		"-json": complete.PredictNothing, "-env": complete.PredictAnything, "-local": complete.PredictNothing,
		"-runtime": complete.PredictAnything, "-address": complete.PredictAnything, "-direct": complete.PredictNothing,
		"-token-file": complete.PredictFiles("*"), "-timeout": complete.PredictAnything,
	}
}

// defaultCheckTimeout is how long a validation may take.
const defaultCheckTimeout = 5 * time.Minute

// validateOptions are the options of flow validate and flow tools.
type validateOptions struct {
	dir, file     string // of the flow
	to            destination
	named         bool // an address was given
	env           repeated
	local, strict bool
	watch, json   bool
	format        string
	timeout       time.Duration
}

// finish checks the options once they have been read.
func (o *validateOptions) finish(rest []string) error {
	if len(rest) != 1 {
		return fmt.Errorf("%w: takes one argument, the flow's folder or file; got %d", errUsage, len(rest))
	}
	var err error
	if o.dir, o.file, err = flowPath(rest[0]); err != nil {
		return err
	}
	o.named = o.to.address != ""
	if !o.named {
		o.to.address = defaultAddress
	}
	if o.json {
		o.format = "json"
	}
	switch {
	case o.format != "text" && o.format != "json" && o.format != "sarif":
		return fmt.Errorf("%w: format %q: want text, json or sarif", errUsage, o.format)
	case o.watch && o.format == "sarif":
		return fmt.Errorf("%w: -watch goes without -format=sarif", errUsage)
	}
	return nil
}

// Run implements cli.Command.
func (c *flowValidateCommand) Run(args []string) int {
	var o validateOptions
	set := c.flags("flow validate")
	set.StringVar(&o.to.runtime, "runtime", os.Getenv("PROMPTFLOW_RUNTIME"), "")
	set.StringVar(&o.to.address, "address", os.Getenv("PROMPTFLOW_ADDR"), "")
	set.BoolVar(&o.to.direct, "direct", false, "")
	set.StringVar(&o.to.tokenFile, "token-file", os.Getenv("PROMPTFLOW_TOKEN_FILE"), "")
	set.Var(&o.env, "env", "")
	set.DurationVar(&o.timeout, "timeout", defaultCheckTimeout, "")
	set.BoolVar(&o.strict, "strict", false, "")
	set.BoolVar(&o.watch, "watch", false, "")
	set.BoolVar(&o.local, "local", false, "")
	set.BoolVar(&o.json, "json", false, "")
	set.StringVar(&o.format, "format", "text", "")
	rest, code, ok := c.parse(set, c.Help(), args)
	if !ok {
		return code
	}
	if err := o.finish(rest); err != nil {
		return c.failed("flow validate", err)
	}
	ctx, stop := untilInterrupted()
	defer stop()
	if !o.watch {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	flow, err := o.edited(ctx, c.meta, false)
	if err != nil {
		return c.failed("flow validate", err)
	}
	if o.watch {
		return c.watch(ctx, &o, flow)
	}
	began := time.Now()
	v, err := flow.check(ctx)
	if err != nil {
		return c.failed("flow validate", err)
	}
	return c.print(&o, v, flow.shown, time.Since(began))
}

// failed says what kept a command from its work and returns the exit code.
func (m meta) failed(command string, err error) int {
	if errors.Is(err, errUsage) {
		return m.usage(command, "%s", strings.TrimPrefix(err.Error(), errUsage.Error()+": "))
	}
	m.fail(err)
	return exitFailure
}

// edited returns the flow with what validates it: a runtime, or this program itself where none is to be had.
func (o *validateOptions) edited(ctx context.Context, m meta, tools bool) (*edited, error) {
	environment, err := keyValues("-env", o.env)
	if err != nil {
		return nil, err
	}
	if len(environment) == 0 {
		environment = nil
	}
	request := api.ValidateRequest{FlowFile: o.file, EnvironmentVariables: environment, Tools: tools}
	if o.local {
		return newEdited(o.dir, nil, "", request), nil
	}
	client, runtime, err := o.to.client(ctx)
	if err != nil && !o.named && !o.to.direct && !tools && isUnreachable(err) {
		m.note("No gateway answers at %s: the flow is checked without Python and connections. Start one with '%s dev', or name one with -address.", o.to.address, Name)
		return newEdited(o.dir, nil, "", request), nil
	}
	if err != nil {
		return nil, err
	}
	return newEdited(o.dir, client, runtime, request), nil
}

func isUnreachable(err error) bool {
	var network *net.OpError
	return errors.As(err, &network) && network.Op == "dial"
}

// print shows a validation and returns the exit code.
func (c *flowValidateCommand) print(o *validateOptions, v *api.Validation, shown func(string) string, took time.Duration) int {
	switch o.format {
	case "json":
		if code := c.printDocument(v, !o.watch); code != exitOK {
			return code
		}
	case "sarif":
		if code := c.printDocument(sarifLog(v, shown), true); code != exitOK {
			return code
		}
	default:
		printProblems(c.stdout, v, shown, took)
	}
	if v.Failed(o.strict) {
		return exitFailure
	}
	return exitOK
}

// printDocument writes JSON: indented, or on one line.
func (m meta) printDocument(document any, indent bool) int {
	encoder := json.NewEncoder(m.stdout)
	encoder.SetEscapeHTML(false)
	if indent {
		encoder.SetIndent("", "  ")
	}
	if err := encoder.Encode(document); err != nil {
		m.fail(fmt.Errorf("write result: %w", err))
		return exitFailure
	}
	return exitOK
}

package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/posener/complete"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

type flowToolsCommand struct {
	meta
}

// Synopsis implements cli.Command.
func (c *flowToolsCommand) Synopsis() string { return "Print the metadata of a flow's tools" }

// Help implements cli.Command.
func (c *flowToolsCommand) Help() string {
	return strings.TrimSpace(`
Usage: nomad-promptflow flow tools FLOW [options]

  Prints what the tools of the flow FLOW, a folder or a flow's file, take, as a
  runtime finds it: the content of prompt flow's .promptflow/flow.tools.json.

  A tool that cannot be loaded is left out and told, and the exit code is 1.

Options:

  -env=NAME=VALUE
    An environment variable for the flow; may be given many times.

` + destinationHelp + `

  -timeout=DURATION
    Give up after this long. Default: 5m.
`)
}

// AutocompleteArgs implements cli.CommandAutocomplete.
func (c *flowToolsCommand) AutocompleteArgs() complete.Predictor { return complete.PredictDirs("*") }

// AutocompleteFlags implements cli.CommandAutocomplete.
func (c *flowToolsCommand) AutocompleteFlags() complete.Flags {
	return complete.Flags{
		"-env": complete.PredictAnything, "-runtime": complete.PredictAnything, "-address": complete.PredictAnything,
		"-direct": complete.PredictNothing, "-token-file": complete.PredictFiles("*"), "-timeout": complete.PredictAnything,
	}
}

// Run implements cli.Command.
func (c *flowToolsCommand) Run(args []string) int {
	o := validateOptions{format: "text"}
	set := c.flags("flow tools")
	set.StringVar(&o.to.runtime, "runtime", os.Getenv("PROMPTFLOW_RUNTIME"), "")
	set.StringVar(&o.to.address, "address", os.Getenv("PROMPTFLOW_ADDR"), "")
	set.BoolVar(&o.to.direct, "direct", false, "")
	set.StringVar(&o.to.tokenFile, "token-file", os.Getenv("PROMPTFLOW_TOKEN_FILE"), "")
	set.Var(&o.env, "env", "")
	set.DurationVar(&o.timeout, "timeout", defaultCheckTimeout, "")
	rest, code, ok := c.parse(set, c.Help(), args)
	if !ok {
		return code
	}
	if err := o.finish(rest); err != nil {
		return c.failed("flow tools", err)
	}
	ctx, stop := untilInterrupted()
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	v, err := c.ask(ctx, &o)
	if err != nil {
		return c.failed("flow tools", err)
	}
	return c.print(v)
}

func (c *flowToolsCommand) ask(ctx context.Context, o *validateOptions) (*api.Validation, error) {
	flow, err := o.edited(ctx, c.meta, true)
	if err != nil {
		return nil, err
	}
	v, err := flow.check(ctx)
	if err != nil || v.Tools != nil {
		return v, err
	}
	var errs []error
	for _, p := range v.Problems {
		if p.Severity == api.SeverityError {
			errs = append(errs, fmt.Errorf("%s:%d:%d: %s (%s)", p.File, p.Line, p.Column, p.Message, p.Code))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return nil, fmt.Errorf("runtime %s cannot tell tools: %s", v.Runtime, strings.Join(v.Unchecked, "; "))
}

// print writes the metadata as prompt flow writes it, and tells the tools that are missing.
func (c *flowToolsCommand) print(v *api.Validation) int {
	var out bytes.Buffer
	if err := json.Indent(&out, v.Tools, "", "    "); err != nil {
		c.fail(fmt.Errorf("read the runtime's answer: %w", err))
		return exitFailure
	}
	out.WriteByte('\n')
	_, _ = c.stdout.Write(out.Bytes())
	for _, source := range slices.Sorted(maps.Keys(v.ToolErrors)) {
		c.fail(fmt.Errorf("%s: %w", source, v.ToolErrors[source]))
	}
	if len(v.ToolErrors) > 0 {
		return exitFailure
	}
	return exitOK
}

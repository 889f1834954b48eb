package command

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"

	"github.com/posener/complete"
)

// Version is the version of the program, and of the driver plugin inside it. It is a variable for the linker to set.
var Version = "0.1.0"

type versionCommand struct {
	meta
	json bool
}

// Synopsis implements cli.Command.
func (c *versionCommand) Synopsis() string { return "Print the version" }

// Help implements cli.Command.
func (c *versionCommand) Help() string {
	return strings.TrimSpace(`
Usage: nomad-promptflow version [options]

  Prints the version of the program, which is also the driver plugin's.

Options:

  -json
    Print as JSON.
`)
}

// AutocompleteArgs implements cli.CommandAutocomplete.
func (c *versionCommand) AutocompleteArgs() complete.Predictor { return complete.PredictNothing }

// AutocompleteFlags implements cli.CommandAutocomplete.
func (c *versionCommand) AutocompleteFlags() complete.Flags {
	return complete.Flags{"-json": complete.PredictNothing}
}

// Run implements cli.Command.
func (c *versionCommand) Run(args []string) int {
	set := c.flags("version")
	set.BoolVar(&c.json, "json", false, "")
	rest, code, ok := c.parse(set, c.Help(), args)
	if !ok {
		return code
	}
	if len(rest) > 0 {
		return c.usage("version", "takes no arguments, got %q", rest[0])
	}
	if c.json {
		data, err := json.Marshal(map[string]string{"version": Version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
		if err != nil {
			c.fail(err)
			return exitFailure
		}
		_, _ = fmt.Fprintln(c.stdout, string(data))
		return exitOK
	}
	_, _ = fmt.Fprintf(c.stdout, "%s v%s (%s, %s/%s)\n", Name, Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return exitOK
}

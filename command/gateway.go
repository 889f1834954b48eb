package command

import (
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/posener/complete"

	"github.com/nomad-promptflow/nomad-promptflow/scheduler/catalog"
	"github.com/nomad-promptflow/nomad-promptflow/scheduler/gateway"
)

type gatewayCommand struct {
	meta
}

// Synopsis implements cli.Command.
func (c *gatewayCommand) Synopsis() string { return "Route submissions to runtimes" }

// Help implements cli.Command.
func (c *gatewayCommand) Help() string {
	return strings.TrimSpace(`
Usage: nomad-promptflow gateway [options]

  Takes submissions for runtimes by name, picks an instance for each, hands in
  the flow where the instance lacks it, and passes the answer on.

  Who may reach the gateway may run flows: keep it on a network of yours.

Options:

  -instance=NAME=ADDRESS
    An instance of the runtime NAME, at http://HOST:PORT or unix:/PATH; may be
    given many times.

  -catalog=FILE
    The runtimes and their instances in a file (HCL or JSON):
      runtime "NAME" {
        instance "ID" {
          address    = "http://10.0.0.7:8080"
          token_file = "/etc/promptflow/token"
        }
      }

  -token-file=FILE
    A file with the token that the instances of -instance ask for.

  -listen=ADDRESS
    HOST:PORT or unix:/PATH. Default 127.0.0.1:8088.

  -data-dir=DIR
    Where bundles are kept. Default: a temporary folder.

  -log-level=LEVEL
    trace, debug, info, warn or error. Default info.
`)
}

// AutocompleteArgs implements cli.CommandAutocomplete.
func (c *gatewayCommand) AutocompleteArgs() complete.Predictor { return complete.PredictNothing }

// AutocompleteFlags implements cli.CommandAutocomplete.
func (c *gatewayCommand) AutocompleteFlags() complete.Flags {
	return complete.Flags{
		"-instance": complete.PredictAnything, "-catalog": complete.PredictFiles("*"), "-token-file": complete.PredictFiles("*"),
		"-listen": complete.PredictAnything, "-data-dir": complete.PredictDirs("*"),
		"-log-level": complete.PredictSet("trace", "debug", "info", "warn", "error"),
	}
}

// Run implements cli.Command.
func (c *gatewayCommand) Run(args []string) int {
	set := c.flags("gateway")
	var instances repeated
	set.Var(&instances, "instance", "")
	file := set.String("catalog", "", "")
	tokenFile := set.String("token-file", "", "")
	listen := set.String("listen", strings.TrimPrefix(defaultAddress, "http://"), "")
	data := set.String("data-dir", "", "")
	level := set.String("log-level", "info", "")
	rest, code, ok := c.parse(set, c.Help(), args)
	switch {
	case !ok:
		return code
	case len(rest) > 0:
		return c.usage("gateway", "takes no arguments, got %q", rest[0])
	case hclog.LevelFromString(*level) == hclog.NoLevel:
		return c.usage("gateway", "log level %q: want trace, debug, info, warn or error", *level)
	case len(instances) == 0 && *file == "":
		return c.usage("gateway", "name the runtimes' instances with -instance or -catalog")
	}
	table, err := staticTable(instances, *file, *tokenFile)
	if err != nil {
		c.fail(err)
		return exitUsage
	}
	ctx, stop := untilInterrupted()
	defer stop()
	err = gateway.Run(ctx, gateway.Config{
		Listen: *listen, Catalog: table, Bundles: *data, Version: Version,
		Logger: hclog.New(&hclog.LoggerOptions{Name: "gateway", Level: hclog.LevelFromString(*level), Output: c.stderr}),
	})
	if err != nil {
		c.fail(err)
		return exitFailure
	}
	return exitOK
}

// staticTable is the catalog of a command line and a file.
func staticTable(instances []string, file, tokenFile string) (*catalog.Table, error) {
	runtimes, err := catalog.Join(instances)
	if err != nil {
		return nil, err
	}
	if tokenFile != "" {
		token, err := os.ReadFile(tokenFile)
		if err != nil {
			return nil, fmt.Errorf("read token: %w", err)
		}
		for _, r := range runtimes {
			for i := range r.Instances {
				r.Instances[i].Token = strings.TrimSpace(string(token))
			}
		}
	}
	if file != "" {
		more, err := catalog.Load(file)
		if err != nil {
			return nil, err
		}
		runtimes = append(runtimes, more...)
	}
	return catalog.NewStatic(runtimes)
}

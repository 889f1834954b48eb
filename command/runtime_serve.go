package command

import (
	"context"
	"os"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/posener/complete"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/server"
)

type serveCommand struct {
	meta
}

// Synopsis implements cli.Command.
func (c *serveCommand) Synopsis() string { return "Run and serve flows (inside a runtime's container)" }

// Help implements cli.Command.
func (c *serveCommand) Help() string {
	return strings.TrimSpace(`
Usage: nomad-promptflow runtime serve [options]

  The server inside a runtime's container. It is configured by its environment,
  which the driver sets; the options say the same to people.

Options:

  -listen=ADDRESS
    HOST:PORT or unix:PATH. PROMPTFLOW_LISTEN; default 127.0.0.1:8080, and
    0.0.0.0:8080 in the base image.

  -flow=PATH
    A flow's folder or bundle to load before the runtime is ready, and to serve
    at /score. PROMPTFLOW_FLOW.

  -python=PATH
    The interpreter that has the prompt flow packages. PROMPTFLOW_PYTHON;
    default python3.

  -log-level=LEVEL
    trace, debug, info, warn or error. PROMPTFLOW_LOG_LEVEL; default info.

  Also read: PROMPTFLOW_RUNTIME, PROMPTFLOW_RUNTIME_TYPE, PROMPTFLOW_OWNER,
  PROMPTFLOW_MAX_CONCURRENCY, PROMPTFLOW_WORKERS, PROMPTFLOW_CONNECTIONS,
  PROMPTFLOW_TRUST, PROMPTFLOW_DATA.
`)
}

// AutocompleteArgs implements cli.CommandAutocomplete.
func (c *serveCommand) AutocompleteArgs() complete.Predictor { return complete.PredictNothing }

// AutocompleteFlags implements cli.CommandAutocomplete.
func (c *serveCommand) AutocompleteFlags() complete.Flags {
	return complete.Flags{
		"-listen": complete.PredictAnything, "-flow": complete.PredictDirs("*"), "-python": complete.PredictFiles("*"),
		"-log-level": complete.PredictSet("trace", "debug", "info", "warn", "error"),
	}
}

// Run implements cli.Command.
func (c *serveCommand) Run(args []string) int {
	set := c.flags("runtime serve")
	overrides := map[string]*string{
		"PROMPTFLOW_LISTEN": set.String("listen", "", ""),
		"PROMPTFLOW_FLOW":   set.String("flow", "", ""),
		"PROMPTFLOW_PYTHON": set.String("python", "", ""),
	}
	level := set.String("log-level", fromEnv("PROMPTFLOW_LOG_LEVEL", "info"), "")
	rest, code, ok := c.parse(set, c.Help(), args)
	if !ok {
		return code
	}
	if len(rest) > 0 {
		return c.usage("runtime serve", "takes no arguments, got %q", rest[0])
	}
	if hclog.LevelFromString(*level) == hclog.NoLevel {
		return c.usage("runtime serve", "log level %q: want trace, debug, info, warn or error", *level)
	}
	config, err := server.ConfigFromEnv(func(name string) (string, bool) {
		if value, ok := overrides[name]; ok && *value != "" {
			return *value, true
		}
		return os.LookupEnv(name)
	})
	if err != nil {
		c.fail(err)
		return exitUsage
	}
	config.Version = Version
	config.Logger = hclog.New(&hclog.LoggerOptions{Name: "runtime", Level: hclog.LevelFromString(*level), Output: c.stderr})
	if err := server.Run(context.Background(), config); err != nil {
		c.fail(err)
		return exitFailure
	}
	return exitOK
}

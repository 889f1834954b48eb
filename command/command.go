// Package command is the command line: what people and pipelines use.
//
// [Run] picks the command from the arguments; each command is a file of its own with its help beside its code. Results go to standard
// output, progress and errors to standard error. The exit code is 0 for success, 1 for failure and 2 for wrong usage.
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/hashicorp/cli"
)

// Name is the program's name.
const Name = "nomad-promptflow"

const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	// exitUnknown is what the CLI library returns for a command that is not there.
	exitUnknown = 127
)

// Run runs the command that args name and returns the exit code.
func Run(args []string) int {
	return run(args, os.Stdin, os.Stdout, os.Stderr)
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	m := meta{stdin: stdin, stdout: stdout, stderr: stderr}
	app := &cli.CLI{
		Name:         Name,
		Version:      Version,
		Args:         args,
		Commands:     commands(m),
		Autocomplete: true,
		HelpFunc:     cli.BasicHelpFunc(Name),
		HelpWriter:   stdout,
		ErrorWriter:  stderr,
	}
	code, err := app.Run()
	if err != nil {
		m.fail(err)
		return exitFailure
	}
	// Where flags stand before a command, the library says so and returns 1, and the command is not run.
	misplaced := code == exitFailure && len(args) > 0 && strings.HasPrefix(args[0], "-")
	if code == exitUnknown || misplaced {
		return exitUsage
	}
	return code
}

func commands(m meta) map[string]cli.CommandFactory {
	all := map[string]cli.Command{
		"dev":                    &devCommand{meta: m},
		"environment":            &group{meta: m, name: "environment", synopsis: "Build the images that runtimes are made from"},
		"environment build-base": &buildBaseCommand{meta: m},
		"flow":                   &group{meta: m, name: "flow", synopsis: "Look at flows before they run"},
		"flow tools":             &flowToolsCommand{meta: m},
		"flow validate":          &flowValidateCommand{meta: m},
		"gateway":                &gatewayCommand{meta: m},
		"run":                    &runCommand{meta: m},
		"runtime":                &group{meta: m, name: "runtime", synopsis: "The server inside a runtime's container"},
		"runtime serve":          &serveCommand{meta: m},
		"version":                &versionCommand{meta: m},
	}
	factories := map[string]cli.CommandFactory{}
	for name, command := range all {
		factories[name] = func() (cli.Command, error) { return command, nil }
	}
	return factories
}

// group only holds the commands below it.
type group struct {
	meta
	name, synopsis string
}

// Help implements cli.Command; the library lists the commands after it.
func (g *group) Help() string { return g.synopsis + "." }

// Synopsis implements cli.Command.
func (g *group) Synopsis() string { return g.synopsis }

// Run implements cli.Command. It is reached only where the arguments name none of the group's commands.
func (g *group) Run(args []string) int {
	if len(args) == 0 {
		return g.usage(g.name, "name one of its commands")
	}
	return g.usage(g.name, "has no command %q", args[0])
}

// meta is what every command has.
type meta struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

func (m meta) fail(err error) { _, _ = fmt.Fprintf(m.stderr, "%s: %s\n", Name, message(err)) }

func (m meta) note(format string, args ...any) { _, _ = fmt.Fprintf(m.stderr, format+"\n", args...) }

// flags returns an empty set of flags for a command. Flags take one dash or two.
func (m meta) flags(name string) *flag.FlagSet {
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	return set
}

// parse reads flags wherever they stand among the arguments, and returns the arguments that are none. With ok false the command
// is over, with that exit code.
func (m meta) parse(set *flag.FlagSet, help string, args []string) (rest []string, code int, ok bool) {
	for {
		err := set.Parse(args)
		switch {
		case errors.Is(err, flag.ErrHelp):
			_, _ = fmt.Fprintln(m.stdout, strings.TrimSpace(help))
			return nil, exitOK, false
		case err != nil:
			return nil, m.usage(set.Name(), "%s", err), false
		}
		if set.NArg() == 0 {
			return rest, exitOK, true
		}
		// The library stops at the first argument that is no flag; people write flags after it too.
		if len(args) > set.NArg() && args[len(args)-set.NArg()-1] == "--" {
			return append(rest, set.Args()...), exitOK, true
		}
		rest = append(rest, set.Arg(0))
		args = set.Args()[1:]
	}
}

// usage says what was wrong with the arguments.
func (m meta) usage(command, format string, args ...any) int {
	_, _ = fmt.Fprintf(m.stderr, "%s %s: %s\nSee '%s %s -help'.\n", Name, command, fmt.Sprintf(format, args...), Name, command)
	return exitUsage
}

// untilInterrupted returns a context that ends with SIGINT or SIGTERM.
func untilInterrupted() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

// repeated is a flag that may be given many times.
type repeated []string

func (r *repeated) String() string     { return strings.Join(*r, ",") }
func (r *repeated) Set(v string) error { *r = append(*r, v); return nil }

// fromEnv is an environment variable's value, or a default.
func fromEnv(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

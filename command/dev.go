package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/posener/complete"
)

const (
	// defaultDevData keeps what makes the next start quick: images and the base image's cache.
	defaultDevData = "/var/lib/nomad-promptflow/dev"
	// defaultDevPort is the gateway's.
	defaultDevPort = 8088
)

type devCommand struct {
	meta
}

// Synopsis implements cli.Command.
func (c *devCommand) Synopsis() string {
	return "Start a runtime and a gateway on this machine, without Nomad"
}

// Help implements cli.Command.
func (c *devCommand) Help() string {
	return strings.TrimSpace(`
Usage: nomad-promptflow dev [options]

  Starts everything on this machine: the driver as a real plugin process,
  runtime containers from the base environment, and the gateway in front of
  them, on loopback. Only the cluster is missing: no Nomad, no Consul.

  It ends with Ctrl-C and leaves no container, mount, process or temporary
  folder behind. What stays is the data folder, with the base image and what
  containerd unpacked of it, so that the next start is quick. A second Ctrl-C
  does not wait for runs under way.

  OPENAI_* and AZURE_OPENAI_* variables of the environment are passed to the
  flows.

  Needs root, containerd and runc (on Debian: apt-get install containerd runc)
  and, to build the base image the first time, mmdebstrap.

Options:

  -count=N
    Instances of the runtime. Default 1.

  -port=PORT
    Port of the gateway on 127.0.0.1; 0 takes a free one. Default 8088.

  -data-dir=DIR
    What stays between starts. Default ` + defaultDevData + `.

  -base-cache=DIR
    Finished layers of the base image. Default: the folder cache in the data
    folder.

  -containerd=PATH
    The socket of a running containerd. Default: /run/containerd/containerd.sock
    when something answers there, else one of its own.

  -var=NAME=VALUE
    A variable of the shared runtime's job (name, environment, image, flow,
    max_concurrency, workers, cpu, memory, env, …); may be given many times.

  -exec=COMMAND
    Run a shell command once everything is ready, with PROMPTFLOW_ADDR set, and
    then stop with its exit code.

  -log-level=LEVEL
    Show the driver's and the gateway's log from this level on. Default: none.
`)
}

// AutocompleteArgs implements cli.CommandAutocomplete.
func (c *devCommand) AutocompleteArgs() complete.Predictor { return complete.PredictNothing }

// AutocompleteFlags implements cli.CommandAutocomplete.
func (c *devCommand) AutocompleteFlags() complete.Flags {
	return complete.Flags{
		"-count": complete.PredictAnything, "-port": complete.PredictAnything, "-data-dir": complete.PredictDirs("*"),
		"-base-cache": complete.PredictDirs("*"), "-containerd": complete.PredictFiles("*"), "-var": complete.PredictAnything, "-exec": complete.PredictAnything,
		"-log-level": complete.PredictSet("trace", "debug", "info", "warn", "error", "off"),
	}
}

// devOptions are the options of dev.
type devOptions struct {
	count, port                                    int
	dataDir, baseCache, containerd, exec, logLevel string
	vars                                           repeated
}

// Run implements cli.Command.
func (c *devCommand) Run(args []string) int {
	var o devOptions
	set := c.flags("dev")
	set.IntVar(&o.count, "count", 1, "")
	set.IntVar(&o.port, "port", defaultDevPort, "")
	set.StringVar(&o.dataDir, "data-dir", defaultDevData, "")
	set.StringVar(&o.baseCache, "base-cache", "", "")
	set.StringVar(&o.containerd, "containerd", "", "")
	set.StringVar(&o.exec, "exec", "", "")
	set.StringVar(&o.logLevel, "log-level", "off", "")
	set.Var(&o.vars, "var", "")
	rest, code, ok := c.parse(set, c.Help(), args)
	if !ok {
		return code
	}
	if len(rest) > 0 {
		return c.usage("dev", "takes no arguments, got %q", rest[0])
	}
	vars, err := o.jobVars()
	if err != nil {
		return c.usage("dev", "%s", err)
	}
	return c.dev(o, vars)
}

// jobVars are the variables of the runtime's job.
func (o *devOptions) jobVars() (map[string]string, error) {
	if o.count < 1 {
		return nil, fmt.Errorf("-count %d: there must be at least one instance", o.count)
	}
	if o.port < 0 || o.port > 65535 {
		return nil, fmt.Errorf("-port %d: must be from 0 to 65535", o.port)
	}
	if o.logLevel != "" && hclog.LevelFromString(o.logLevel) == hclog.NoLevel {
		return nil, fmt.Errorf("-log-level %q: want trace, debug, info, warn, error or off", o.logLevel)
	}
	vars, err := keyValues("-var", o.vars)
	if err != nil {
		return nil, err
	}
	if _, set := vars["name"]; !set {
		vars["name"] = "dev"
	}
	if _, set := vars["count"]; set {
		return nil, errors.New("-var count: say it with -count")
	}
	vars["count"] = strconv.Itoa(o.count)
	return vars, nil
}

// dev starts everything, waits for the end or runs the command, and takes everything down again.
func (c *devCommand) dev(o devOptions, vars map[string]string) int {
	ctx, stop, force := devContexts()
	defer stop()
	d := &devCluster{options: o, vars: vars, progress: newProgress(c.stderr), logger: devLogger(c.stderr, o.logLevel)}
	code := c.devRun(ctx, d)
	d.progress.doing("stopping")
	if err := d.down(force); err != nil {
		d.progress.end()
		c.fail(fmt.Errorf("stop: %w", err))
		return exitFailure
	}
	if d.runDir != "" {
		d.progress.did("stopped; what makes the next start quick stays in %s", d.options.dataDir)
	}
	return code
}

func (c *devCommand) devRun(ctx context.Context, d *devCluster) int {
	err := d.up(ctx)
	d.progress.end()
	switch {
	case ctx.Err() != nil:
		c.note("interrupted")
		return exitFailure
	case err != nil:
		c.fail(err)
		return exitFailure
	}
	c.printDev(d)
	if d.options.exec != "" {
		return c.devExec(ctx, d)
	}
	select {
	case <-ctx.Done():
		return exitOK
	case err := <-d.failed:
		c.fail(err)
		return exitFailure
	}
}

func (c *devCommand) printDev(d *devCluster) {
	_, _ = fmt.Fprintf(c.stdout, "\ngateway   %s\nruntime   %s\n", d.address, d.task.Job)
	for _, instance := range d.instances {
		_, _ = fmt.Fprintf(c.stdout, "instance  %s  %s  log %s\n", instance.alloc.ID()[:8], instance.address, instance.logFile())
	}
	if d.options.exec == "" {
		_, _ = fmt.Fprintf(c.stdout, "\nEverybody on this machine who reaches the gateway may run flows. Try:\n\n  %s run FLOW-FOLDER -address %s\n\nCtrl-C stops.\n", Name, d.address)
	}
}

// devExec runs the command and returns its exit code.
func (c *devCommand) devExec(ctx context.Context, d *devCluster) int {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", d.options.exec)
	cmd.Env = append(os.Environ(), "PROMPTFLOW_ADDR="+d.address, "PROMPTFLOW_RUNTIME="+d.task.Job)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, c.stdout, c.stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	default:
		c.fail(fmt.Errorf("run %q: %w", d.options.exec, err))
		return exitFailure
	}
}

// devContexts returns a context that ends with the first interrupt and one that ends with the second.
func devContexts() (first context.Context, stop func(), second context.Context) {
	first, endFirst := context.WithCancel(context.Background())
	second, endSecond := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		for _, end := range []context.CancelFunc{endFirst, endSecond} {
			select {
			case <-signals:
				end()
			case <-done:
				return
			}
		}
	}()
	return first, func() { signal.Stop(signals); close(done); endFirst(); endSecond() }, second
}

// absolute makes a path of the command line one that other processes understand.
func absolute(path string) (string, error) {
	out, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find folder %s: %w", path, err)
	}
	return out, nil
}

package command

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/posener/complete"

	"github.com/nomad-promptflow/nomad-promptflow/environment"
)

// defaultEnvironments is where the driver looks for environments unless its configuration says otherwise.
const defaultEnvironments = "/var/lib/nomad-promptflow/environments"

type buildBaseCommand struct {
	meta
}

// Synopsis implements cli.Command.
func (c *buildBaseCommand) Synopsis() string { return "Build the base environment's image" }

// Help implements cli.Command.
func (c *buildBaseCommand) Help() string {
	return strings.TrimSpace(`
Usage: nomad-promptflow environment build-base [options]

  Builds the base environment: a Debian root file system, Python with the prompt
  flow packages of the lock file, and this program. No image registry is needed,
  only Debian's and PyPI's package servers (or mirrors of them). Layers are
  cached by what they are made from, so that a second build takes seconds.

Options:

  -environments=DIR
    The OCI layout that gets the image, as "default:latest". The driver's option
    of the same name says where it looks. Default /var/lib/nomad-promptflow/environments.

  -output=FILE
    Also write the image as an archive that docker load, podman load, skopeo and
    ctr image import read.

  -cache=DIR
    Where finished layers are kept. Default: the user's cache folder.

  -binary=FILE
    The statically linked nomad-promptflow for the image. Default: this program.

  -mirror=URL, -security-mirror=URL
    Where Debian packages come from. Default: Debian's own servers.

  -refresh
    Build every layer again, so that security updates get in.

  -json
    Print the result as JSON.
`)
}

// AutocompleteArgs implements cli.CommandAutocomplete.
func (c *buildBaseCommand) AutocompleteArgs() complete.Predictor { return complete.PredictNothing }

// AutocompleteFlags implements cli.CommandAutocomplete.
func (c *buildBaseCommand) AutocompleteFlags() complete.Flags {
	return complete.Flags{
		"-environments": complete.PredictDirs("*"), "-output": complete.PredictFiles("*"), "-cache": complete.PredictDirs("*"),
		"-binary": complete.PredictFiles("*"), "-mirror": complete.PredictAnything, "-security-mirror": complete.PredictAnything,
		"-refresh": complete.PredictNothing, "-json": complete.PredictNothing,
	}
}

// Run implements cli.Command.
func (c *buildBaseCommand) Run(args []string) int {
	set := c.flags("environment build-base")
	options := environment.BaseOptions{Version: Version}
	set.StringVar(&options.Layout, "environments", defaultEnvironments, "")
	set.StringVar(&options.Archive, "output", "", "")
	set.StringVar(&options.Cache, "cache", "", "")
	set.StringVar(&options.Binary, "binary", "", "")
	set.StringVar(&options.Mirror.Archive, "mirror", "", "")
	set.StringVar(&options.Mirror.Security, "security-mirror", "", "")
	set.BoolVar(&options.Refresh, "refresh", false, "")
	asJSON := set.Bool("json", false, "")
	rest, code, ok := c.parse(set, c.Help(), args)
	if !ok {
		return code
	}
	if len(rest) > 0 {
		return c.usage("environment build-base", "takes no arguments, got %q", rest[0])
	}
	shown := newProgress(c.stderr)
	options.Progress = shown.build
	ctx, stop := untilInterrupted()
	defer stop()
	result, err := environment.BuildBase(ctx, options)
	shown.end()
	if err != nil {
		c.fail(err)
		return exitFailure
	}
	if *asJSON {
		return c.printJSON(result)
	}
	c.printResult(result)
	return exitOK
}

// build shows the events of an environment's build.
func (p *progress) build(e environment.Event) {
	switch {
	case e.Done && e.Cached:
		p.did("%s: %s, as before", e.Stage, e.Detail)
	case e.Done:
		p.did("%s: %s", e.Stage, e.Detail)
	default:
		p.doing("%s: %s", e.Stage, e.Detail)
	}
}

func (m meta) printJSON(value any) int {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		m.fail(err)
		return exitFailure
	}
	_, _ = fmt.Fprintln(m.stdout, string(data))
	return exitOK
}

func (c *buildBaseCommand) printResult(r *environment.Result) {
	table := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "LAYER\tDIGEST\tSTORED\tUNPACKED\tTIME")
	for _, layer := range r.Layers {
		took := fmt.Sprintf("%.1f s", layer.Seconds)
		if layer.Cached {
			took = "cached"
		}
		_, _ = fmt.Fprintf(table, "%s\t%.19s\t%s\t%s\t%s\n", layer.Stage, layer.Digest, megabytes(layer.Size), megabytes(layer.Uncompressed), took)
	}
	_, _ = fmt.Fprintf(table, "image\t%.19s\t%s\t%s\t%.1f s\n", r.Digest, megabytes(r.Size), megabytes(r.Uncompressed), r.Seconds)
	_ = table.Flush()
	_, _ = fmt.Fprintf(c.stdout, "\n%s is in %s as %s\n", r.Name, r.Layout, r.Tag)
	if r.Archive != "" {
		_, _ = fmt.Fprintf(c.stdout, "archive: %s\n", r.Archive)
	}
}

package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/cli"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

// invoke runs the program with these arguments.
func invoke(args ...string) (code int, stdout, stderr string) {
	return invokeWith("", args...)
}

// invokeWith is invoke with something typed.
func invokeWith(typed string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(args, strings.NewReader(typed), &out, &errs)
	return code, out.String(), errs.String()
}

// file makes a file in a folder of the test's own and returns its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// noFolder can never be made. The tests of dev's usage name it, so that a dev that takes wrong usage for right starts nothing, also
// where root runs the tests.
const noFolder = "/dev/null/none"

func TestRun_refuses_wrong_usage(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args []string
		says string
	}{
		"no command":                          {nil, "Available commands are:"},
		"a command that is not there":         {[]string{"rnu"}, "Available commands are:"},
		"a flag before the command":           {[]string{"-json", "version"}, "Invalid flags before the subcommand"},
		"a group alone":                       {[]string{"environment"}, "nomad-promptflow environment: name one of its commands\nSee 'nomad-promptflow environment -help'."},
		"a command that is not in the group":  {[]string{"runtime", "start"}, `nomad-promptflow runtime: has no command "start"`},
		"an argument of version":              {[]string{"version", "all"}, `nomad-promptflow version: takes no arguments, got "all"`},
		"an unknown flag":                     {[]string{"version", "-yaml"}, "nomad-promptflow version: flag provided but not defined: -yaml\nSee 'nomad-promptflow version -help'."},
		"run without a flow":                  {[]string{"run"}, "nomad-promptflow run: takes one argument, the flow's folder or file; got 0"},
		"run with two flows":                  {[]string{"run", "a", "b"}, "got 2"},
		"run with a timeout that is none":     {[]string{"run", "a", "-timeout", "soon"}, `invalid value "soon" for flag -timeout`},
		"run with an input without a value":   {[]string{"run", "a", "-input", "text"}, `-input "text": want NAME=VALUE`},
		"run with an input without a name":    {[]string{"run", "a", "-input", "=x"}, `-input "=x": want NAME=VALUE`},
		"run with a variable without a value": {[]string{"run", "a", "-env", "X"}, `-env "X": want NAME=VALUE`},
		"run with data and an input":          {[]string{"run", "a", "-data", "d.jsonl", "-input", "a=b"}, "-data goes without -input and -inputs"},
		"run with data and inputs":            {[]string{"run", "a", "-data", "d.jsonl", "-inputs", "i.json"}, "-data goes without -input and -inputs"},
		"run with a file":                     {[]string{"run", "command_test.go"}, "command_test.go is not a flow; name the folder of one, or a *.yaml, *.yml or *.prompty file"},
		"gateway without instances":           {[]string{"gateway"}, "name the runtimes' instances with -instance or -catalog"},
		"gateway with an argument":            {[]string{"gateway", "a=h:1"}, `takes no arguments, got "a=h:1"`},
		"gateway with a bad level":            {[]string{"gateway", "-instance", "a=h:1", "-log-level", "loud"}, `log level "loud": want trace`},
		"gateway with a bad instance":         {[]string{"gateway", "-instance", "h:1"}, `instance "h:1": must be NAME=ADDRESS`},
		"gateway with a bad name":             {[]string{"gateway", "-instance", "a/b=h:1"}, `runtime "a/b": a name has`},
		"gateway with a bad port":             {[]string{"gateway", "-instance", "a=h:0"}, "the port must be a number"},
		"gateway without its catalog":         {[]string{"gateway", "-catalog", "/nonexistent/runtimes.hcl"}, "/nonexistent/runtimes.hcl"},
		"gateway without its token":           {[]string{"gateway", "-instance", "a=h:1", "-token-file", "/nonexistent/token"}, "read token: open /nonexistent/token"},
		"serve with an argument":              {[]string{"runtime", "serve", "flow"}, `takes no arguments, got "flow"`},
		"serve with a bad level":              {[]string{"runtime", "serve", "-log-level", "loud"}, `log level "loud": want trace`},
		"serve with a bad address":            {[]string{"runtime", "serve", "-listen", "here"}, `"here": want host:port or unix:PATH`},
		"build-base with an argument":         {[]string{"environment", "build-base", "image"}, `takes no arguments, got "image"`},
		"build-base with a bad flag":          {[]string{"environment", "build-base", "-refresh=often"}, `"often"`},
		"dev with an argument":                {[]string{"dev", "-data-dir", noFolder, "flow"}, `takes no arguments, got "flow"`},
		"dev without an instance":             {[]string{"dev", "-data-dir", noFolder, "-count", "0"}, "-count 0: there must be at least one instance"},
		"dev with a port that is none":        {[]string{"dev", "-data-dir", noFolder, "-port", "70000"}, "-port 70000: must be from 0 to 65535"},
		"dev with a negative port":            {[]string{"dev", "-data-dir", noFolder, "-port", "-1"}, "-port -1: must be from 0 to 65535"},
		"dev with a variable without a value": {[]string{"dev", "-data-dir", noFolder, "-var", "x"}, `-var "x": want NAME=VALUE`},
		"dev with a bad level":                {[]string{"dev", "-data-dir", noFolder, "-log-level", "loud"}, `-log-level "loud": want trace`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := invoke(tc.args...)
			test.Eq(t, exitUsage, code)
			test.Eq(t, "", stdout)
			test.StrContains(t, stderr, tc.says)
		})
	}
}

func TestRun_refuses_a_wrong_environment(t *testing.T) {
	flow := flowFolder(t)
	tests := map[string]struct {
		command     []string
		name, value string
		says        string
	}{
		"an address without a port": {[]string{"runtime", "serve"}, "PROMPTFLOW_LISTEN", "here", `read PROMPTFLOW_LISTEN "here"`},
		"a number that is none":     {[]string{"runtime", "serve"}, "PROMPTFLOW_MAX_CONCURRENCY", "many", `read PROMPTFLOW_MAX_CONCURRENCY "many"`},
		"a bad level":               {[]string{"runtime", "serve"}, "PROMPTFLOW_LOG_LEVEL", "loud", `log level "loud"`},
		"a gateway that is none":    {[]string{"run", flow}, "PROMPTFLOW_ADDR", "ftp://x", `address "ftp://x": must be`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv(tc.name, tc.value)
			code, _, stderr := invoke(tc.command...)
			test.Eq(t, exitUsage, code)
			test.StrContains(t, stderr, tc.says)
		})
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := invoke("version")
	test.Eq(t, exitOK, code)
	test.Eq(t, "nomad-promptflow v"+Version+" ("+runtime.Version()+", "+runtime.GOOS+"/"+runtime.GOARCH+")\n", stdout)
	test.Eq(t, "", stderr)

	code, stdout, _ = invoke("version", "-json")
	test.Eq(t, exitOK, code)
	var said map[string]string
	must.NoError(t, json.Unmarshal([]byte(stdout), &said))
	test.Eq(t, map[string]string{"version": Version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}, said)

	code, stdout, _ = invoke("-version")
	test.Eq(t, exitOK, code)
	test.Eq(t, Version+"\n", stdout)
}

// flagged is a command whose flags can be completed.
type flagged interface {
	cli.Command
	cli.CommandAutocomplete
}

var helpFlag = regexp.MustCompile(`(?m)^  (-[a-z].*)$`)

// helpFlags are the flags that a help text explains.
func helpFlags(help string) []string {
	var names []string
	for _, line := range helpFlag.FindAllStringSubmatch(help, -1) {
		for flag := range strings.SplitSeq(line[1], ", ") {
			name, _, _ := strings.Cut(flag, "=")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestHelp_explains_every_flag_of_every_command(t *testing.T) {
	t.Parallel()
	for name, factory := range commands(meta{stdout: io.Discard, stderr: io.Discard}) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			command, err := factory()
			must.NoError(t, err)
			test.NotEq(t, "", command.Synopsis())
			code, stdout, stderr := invoke(append(strings.Fields(name), "-help")...)
			test.Eq(t, exitOK, code)
			test.Eq(t, "", stderr)
			test.StrHasPrefix(t, command.Help(), stdout)
			with, ok := command.(flagged)
			if !ok {
				test.StrContains(t, stdout, "Subcommands:")
				return
			}
			test.StrHasPrefix(t, "Usage: nomad-promptflow "+name+" ", stdout)
			explained := helpFlags(stdout)
			test.Eq(t, slices.Sorted(maps.Keys(with.AutocompleteFlags())), explained)
			test.Eq(t, definedFlags(t, name), explained)
		})
	}
}

var definedFlag = regexp.MustCompile(`\bset\.\w+\((?:&[\w.]+, )?"([a-z-]+)"`)

// definedFlags are the flags that a command's code defines. A command makes its set of flags when it runs, so they are read from the
// source, which has a file for each command.
func definedFlags(t *testing.T, command string) []string {
	t.Helper()
	source, err := os.ReadFile(strings.NewReplacer(" ", "_", "-", "_").Replace(command) + ".go")
	must.NoError(t, err)
	var names []string
	for _, call := range definedFlag.FindAllSubmatch(source, -1) {
		names = append(names, "-"+string(call[1]))
	}
	must.SliceNotEmpty(t, names)
	slices.Sort(names)
	return names
}

func TestHelp_of_the_program_names_every_command(t *testing.T) {
	t.Parallel()
	code, stdout, _ := invoke("-help")
	test.Eq(t, exitOK, code)
	for _, name := range []string{"dev", "environment", "flow", "gateway", "run", "runtime", "version"} {
		test.RegexMatch(t, regexp.MustCompile(`(?m)^    `+name+` +[A-Z]`), stdout)
	}
}

func TestParse_reads_flags_wherever_they_stand(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args  []string
		rest  []string
		names string
		yes   bool
	}{
		"none":                    {},
		"flags first":             {args: []string{"-name", "a", "-yes", "x"}, rest: []string{"x"}, names: "a", yes: true},
		"flags last":              {args: []string{"x", "-name=a", "--yes"}, rest: []string{"x"}, names: "a", yes: true},
		"flags between":           {args: []string{"x", "-name", "a", "y", "-name", "b", "z"}, rest: []string{"x", "y", "z"}, names: "a,b"},
		"no flags after --":       {args: []string{"-yes", "--", "-name", "a"}, rest: []string{"-name", "a"}, yes: true},
		"-- after an argument":    {args: []string{"x", "--", "-yes"}, rest: []string{"x", "-yes"}},
		"-- at the end":           {args: []string{"x", "--"}, rest: []string{"x"}},
		"- is an argument":        {args: []string{"-", "-yes"}, rest: []string{"-"}, yes: true},
		"a value with a sign":     {args: []string{"-name", "k=v=w"}, names: "k=v=w"},
		"a value like a flag":     {args: []string{"-name", "-yes"}, names: "-yes"},
		"an argument with spaces": {args: []string{"a b", ""}, rest: []string{"a b", ""}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := meta{stdout: io.Discard, stderr: io.Discard}
			set := m.flags("test")
			var names repeated
			set.Var(&names, "name", "")
			yes := set.Bool("yes", false, "")
			rest, code, ok := m.parse(set, "", tc.args)
			must.True(t, ok)
			test.Eq(t, exitOK, code)
			test.Eq(t, tc.rest, rest)
			test.Eq(t, tc.names, names.String())
			test.Eq(t, tc.yes, *yes)
		})
	}
}

func TestParse_ends_the_command(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	m := meta{stdout: &stdout, stderr: &stderr}
	_, code, ok := m.parse(m.flags("test"), "\nUsage: test\n", []string{"x", "-h"})
	test.False(t, ok)
	test.Eq(t, exitOK, code)
	test.Eq(t, "Usage: test\n", stdout.String())
	test.Eq(t, "", stderr.String())

	set := m.flags("test")
	set.Func("never", "", func(string) error { return errors.New("not today") })
	_, code, ok = m.parse(set, "", []string{"x", "-never", "y"})
	test.False(t, ok)
	test.Eq(t, exitUsage, code)
	test.StrContains(t, stderr.String(), "nomad-promptflow test: invalid value \"y\" for flag -never: not today\nSee 'nomad-promptflow test -help'.\n")
	test.Eq(t, flag.ContinueOnError, set.ErrorHandling())
}

func TestFromEnv(t *testing.T) {
	t.Setenv("PROMPTFLOW_TEST", "set")
	test.Eq(t, "set", fromEnv("PROMPTFLOW_TEST", "default"))
	t.Setenv("PROMPTFLOW_TEST", "")
	test.Eq(t, "default", fromEnv("PROMPTFLOW_TEST", "default"))
}

func TestMessage_says_what_where_and_which_class(t *testing.T) {
	t.Parallel()
	deep := func() *api.Error {
		return api.NewError([]string{api.UserError, "ValidationError", "InputNotFound"}, "Executor", "no input %q", "text")
	}
	tests := map[string]struct {
		err  error
		want string
	}{
		"an error of ours":          {errors.New("read token: gone"), "read token: gone"},
		"a class below the root":    {deep(), `no input "text" (UserError/ValidationError/InputNotFound)`},
		"no class below the root":   {api.NewError([]string{api.SystemError}, "", "broken\n"), "broken"},
		"a place":                   {deep().At("flow.dag.yaml", 4, 9), `flow.dag.yaml:4:9: no input "text" (UserError/ValidationError/InputNotFound)`},
		"what is wrapped around":    {fmt.Errorf("line 3: %w", deep()), `line 3: no input "text" (UserError/ValidationError/InputNotFound)`},
		"what is wrapped, no class": {fmt.Errorf("line 3: %w", api.NewError([]string{api.UserError}, "", "broken")), "line 3: broken"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.Eq(t, tc.want, message(tc.err))
		})
	}
}

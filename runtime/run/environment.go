package run

import (
	"os"
	"regexp"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Overwriting returns the environment of a test or batch run: the flow's variables, and the submission's over them, replace the
// process's.
func Overwriting(submitted map[string]string) func(*flow.Flow) map[string]string {
	return func(f *flow.Flow) map[string]string {
		env := f.Environment()
		for name, text := range submitted {
			env[name] = text
		}
		return env
	}
}

// Filling returns the environment of a flow that is served: the flow's variables fill in what the process has not set.
func Filling(isSet connection.Lookup) func(*flow.Flow) map[string]string {
	return func(f *flow.Flow) map[string]string {
		env := f.Environment()
		for name := range env {
			if _, ok := isSet(name); ok {
				delete(env, name)
			}
		}
		return env
	}
}

// lookup reads the flow's environment, then the process's.
func lookup(environment map[string]string) connection.Lookup {
	return func(name string) (string, bool) {
		if text, ok := environment[name]; ok {
			return text, true
		}
		return os.LookupEnv(name)
	}
}

var connectionReference = regexp.MustCompile(`^\$\{([^.]+)\.([^.]+)\}$`)

// resolveReferences replaces variables of the form ${connection.key} by the connection's value; what is not there stays as it is
// written (prompt flow's update_environment_variables_with_connections).
func resolveReferences(environment map[string]string, connections *connection.Set) {
	for name, text := range environment {
		m := connectionReference.FindStringSubmatch(strings.TrimSpace(text))
		if m == nil {
			continue
		}
		c, err := connections.Get(m[1])
		if err != nil {
			continue
		}
		if v, ok := c.Value(m[2]); ok {
			environment[name] = value.Str(v)
		}
	}
}

package worker

import (
	"os"
	"strings"
)

// ownVariables are the runtime's settings and credentials: flows of anybody run in workers and must not read them.
// Prompt flow's own PROMPTFLOW_ variables (serving) are not read in workers, so the whole prefix goes.
var ownVariables = []string{"PROMPTFLOW_"}

var credentialVariables = map[string]bool{
	"NOMAD_TOKEN": true, "CONSUL_HTTP_TOKEN": true, "CONSUL_TOKEN": true, "VAULT_TOKEN": true,
}

// deniedVariables are what prompt flow strips from a flow's environment_variables (executor/_service, service_utils.py): each
// can weaken the process that runs the flow.
var deniedVariables = map[string]bool{"PYTHONWARNINGS": true, "BROWSER": true, "PF_USE_SANDBOX_FOR_JINJA": true}

// cleanEnviron returns environ without the runtime's own variables.
func cleanEnviron(environ []string) []string {
	clean := make([]string, 0, len(environ))
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if !isOwnVariable(name) {
			clean = append(clean, entry)
		}
	}
	return clean
}

func isOwnVariable(name string) bool {
	if credentialVariables[name] {
		return true
	}
	for _, prefix := range ownVariables {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// allowedVariables returns a flow's variables without the denied ones.
func allowedVariables(env map[string]string) map[string]string {
	allowed := make(map[string]string, len(env))
	for name, v := range env {
		if !deniedVariables[name] {
			allowed[name] = v
		}
	}
	return allowed
}

// Visible returns the lookup of what a flow sees of the environment when these are its variables: they come first, and of this process's
// all but the runtime's own. It is for what reads a flow's files outside of a worker.
func Visible(flow map[string]string) func(name string) (string, bool) {
	allowed := allowedVariables(flow)
	return func(name string) (string, bool) {
		if text, ok := allowed[name]; ok {
			return text, true
		}
		if isOwnVariable(name) {
			return "", false
		}
		return os.LookupEnv(name)
	}
}

package tool

import (
	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
)

// Parameter is a parameter of an llm node's API.
type Parameter struct {
	Name     string
	Type     string // prompt flow's: int, double, bool, string, list, object
	Required bool
}

// Check converts a literal input as a node would.
func (p Parameter) Check(v any) error {
	_, err := kind(p.Type).convert(v)
	return err
}

// Parameters returns what the flow file may give to the API of a provider ("OpenAI", "AzureOpenAI"), false when the provider has no such
// API. The connection and the prompt, which a node has elsewhere, are left out.
func Parameters(provider, apiName string) ([]Parameter, bool) {
	s, ok := signatures[provider+"."+apiName]
	var all []Parameter
	for _, p := range s {
		if p.kind != kindOther && p.kind != kindPrompt {
			all = append(all, Parameter{p.name, string(p.kind), p.required})
		}
	}
	return all, ok
}

// Provider returns the provider that a connection decides on.
func Provider(c *connection.Connection) (string, *api.Error) { return providerOf(c) }

// Roles returns the places of the lines of a text that separate chat messages, as pairs of offsets: of the line, and behind it.
func Roles(text string) [][2]int {
	var found [][2]int
	for _, m := range separator.FindAllStringSubmatchIndex(text, -1) {
		found = append(found, [2]int{m[2], m[1]})
	}
	return found
}

// RoleNames returns the roles that a chat template may have.
func RoleNames() []string { return append([]string(nil), validRoles...) }

// WrongLiteral is the error for a literal input that does not have its parameter's type.
func WrongLiteral(node, input, typ string, v any) *api.Error {
	return resolveError(node, wrongLiteral(node, input, typ, v))
}

package connection

import (
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// recipe makes a connection of environment variables that OpenAI's own clients read, as prompt flow's from_env does.
type recipe struct {
	class    string
	required []variable
	optional []variable
	fixed    []variable
}

// variable is a field and where it comes from: an environment variable, or for a fixed field the value itself.
type variable struct {
	field string
	from  string
}

// recipes are the connections that need no file, by the names that prompt flow's own examples use.
var recipes = map[string]recipe{
	"open_ai_connection": {
		class:    OpenAI,
		required: []variable{{"api_key", "OPENAI_API_KEY"}},
		optional: []variable{{"base_url", "OPENAI_BASE_URL"}, {"organization", "OPENAI_ORG_ID"}},
	},
	"azure_open_ai_connection": {
		class:    AzureOpenAI,
		required: []variable{{"api_base", "AZURE_OPENAI_ENDPOINT"}, {"api_key", "AZURE_OPENAI_API_KEY"}},
		optional: []variable{{"api_version", "OPENAI_API_VERSION"}},
		fixed:    []variable{{"api_type", "azure"}, {"auth_mode", authModeKey}},
	},
}

// hint names the variables to set.
func (r recipe) hint() string {
	var required, optional []string
	for _, v := range r.required {
		required = append(required, v.from)
	}
	for _, v := range r.optional {
		optional = append(optional, v.from)
	}
	return strings.Join(required, " and ") + " (and if needed " + strings.Join(optional, " and ") + ") in the environment"
}

// fromEnvironment makes the connection of a name that has a recipe, and returns nil when there is none or when a variable
// that it needs is not set.
func (s *Set) fromEnvironment(name string) (*Connection, error) {
	r, ok := recipes[name]
	if !ok {
		return nil, nil
	}
	c := &Connection{Name: name, Class: r.class, Module: module, values: value.NewDict(), secrets: secretFields}
	for _, v := range r.required {
		text, ok := s.env(v.from)
		if !ok {
			return nil, nil
		}
		c.values.Set(v.field, text)
	}
	for _, v := range r.optional {
		if text, ok := s.env(v.from); ok && text != "" {
			c.values.Set(v.field, text)
		}
	}
	for _, v := range r.fixed {
		c.values.Set(v.field, v.from)
	}
	return c, s.applyEnvironment(c)
}

// Package connection holds the connections that flows name: endpoint settings and secrets, in prompt flow's executor JSON.
//
// [Load] reads them once from the file that the job's template block rendered and from the environment; a [Set] then
// answers by name. Secrets never appear in a text that this package makes: not in errors, not in String.
package connection

import (
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// The connection classes that this runtime itself speaks to; all others only pass through to Python tools.
const (
	OpenAI      = "OpenAIConnection"
	AzureOpenAI = "AzureOpenAIConnection"
	Serverless  = "ServerlessConnection"
	Custom      = "CustomConnection"
)

// DefaultAzureAPIVersion is the api_version of an Azure OpenAI connection that names none
// (promptflow.constants.ConnectionDefaultApiVersion.AZURE_OPEN_AI).
const DefaultAzureAPIVersion = "2024-02-01"

// authModeKey is the auth_mode of connections that carry an API key.
const authModeKey = "key"

// secretFields are the secret fields of the classes that prompt flow knows; all of them have the one. A custom
// connection says itself which of its keys are secret.
var secretFields = []string{"api_key"}

// classes are the connection classes of promptflow.connections 1.18, by class name.
var classes = []string{
	OpenAI, AzureOpenAI, Serverless, Custom, "SerpConnection", "CognitiveSearchConnection", "AzureAIServicesConnection",
	"AzureContentSafetyConnection", "FormRecognizerConnection", "BingConnection",
	"QdrantConnection", "WeaviateConnection",
}

// Connection is one named connection. It does not change once made.
type Connection struct {
	// Name is what flows call it.
	Name string
	// Class is the Python class, such as [OpenAI].
	Class string
	// Module is the Python module of the class.
	Module string

	values  *value.Dict
	secrets []string
}

// Of makes a connection that stands in no file, of one of the classes that this runtime speaks to.
func Of(name, class string, values *value.Dict) *Connection {
	return &Connection{Name: name, Class: class, Module: module, values: values, secrets: secretFields}
}

// Value returns a field's value and whether it has one; null counts as none.
func (c *Connection) Value(field string) (any, bool) {
	v, ok := c.values.Get(field)
	return v, ok && v != nil
}

// Text returns a field's text, or "" when it has none or is no text.
func (c *Connection) Text(field string) string {
	v, _ := c.values.Get(field)
	s, _ := v.(string)
	return s
}

// APIKey returns the key for the endpoint; "" when the connection does not sign in with a key.
func (c *Connection) APIKey() string {
	if mode := c.Text("auth_mode"); mode != "" && mode != authModeKey {
		return ""
	}
	return c.Text("api_key")
}

// BaseURL returns the endpoint as the connection's class names it: base_url, api_base or endpoint. Like prompt flow it takes
// "_" of an OpenAI connection as none.
func (c *Connection) BaseURL() string {
	switch c.Class {
	case OpenAI:
		if u := c.Text("base_url"); u != "_" {
			return u
		}
		return ""
	case AzureOpenAI, Serverless:
		return c.Text("api_base")
	default:
		return c.Text("endpoint")
	}
}

// IsSecret reports whether a field's value must never be shown.
func (c *Connection) IsSecret(field string) bool {
	return slices.Contains(c.secrets, field)
}

// Secrets returns the secret values, for scrubbing logs.
func (c *Connection) Secrets() []string {
	var secrets []string
	for _, field := range c.secrets {
		if s := c.Text(field); s != "" {
			secrets = append(secrets, s)
		}
	}
	return secrets
}

// String shows the connection without its secrets.
func (c *Connection) String() string {
	var b strings.Builder
	b.WriteString(c.Class + "(name=" + value.Repr(c.Name))
	for field, v := range c.values.All() {
		if c.IsSecret(field) {
			v = "**data_scrubbed**"
		}
		b.WriteString(", " + field + "=" + value.Repr(v))
	}
	return b.String() + ")"
}

// GoString is String, so that no format verb shows a secret.
func (c *Connection) GoString() string { return c.String() }

// Dict returns the connection in executor JSON, with its secrets: what a Python worker makes the connection object from.
func (c *Connection) Dict() *value.Dict {
	secrets := make([]any, len(c.secrets))
	for i, s := range c.secrets {
		secrets[i] = s
	}
	d := value.NewDict()
	d.Set("type", c.Class)
	d.Set("module", c.Module)
	d.Set("value", c.values.Clone())
	d.Set("secret_keys", secrets)
	return d
}

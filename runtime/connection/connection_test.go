package connection

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

func lookup(pairs ...string) Lookup {
	vars := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		vars[pairs[i]] = pairs[i+1]
	}
	return func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	}
}

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "connections.json")
	must.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

const sample = `{
  "my azure": {"type": "AzureOpenAIConnection", "module": "promptflow.connections",
    "value": {"api_key": "${env:THE_KEY}", "api_base": "https://a.example", "api_type": "azure", "resource_id": null}},
  "open_ai_connection": {"type": "OpenAIConnection", "value": {"api_key": "sk-file", "base_url": "_"}},
  "box": {"type": "CustomConnection", "module": "promptflow.connections",
    "value": {"endpoint": "e", "token": "t0ken", "n": 3}, "secret_keys": ["token"]}
}`

func TestLoad_ReadsExecutorJSON(t *testing.T) {
	t.Parallel()
	set, err := Load(write(t, sample), lookup("THE_KEY", "s3cret", "MY_AZURE_API_BASE", "https://b.example", "OTHER", "x"))
	must.NoError(t, err)
	must.Eq(t, []string{"box", "my azure", "open_ai_connection"}, set.Names())

	a, err := set.Get("my azure")
	must.NoError(t, err)
	must.Eq(t, "s3cret", a.APIKey())
	must.Eq(t, "https://b.example", a.BaseURL())
	_, ok := a.Value("resource_id")
	must.False(t, ok)

	o, err := set.Get("open_ai_connection")
	must.NoError(t, err)
	must.Eq(t, "", o.BaseURL())
	must.Eq(t, "sk-file", o.APIKey())

	box, err := set.Get("box")
	must.NoError(t, err)
	must.Eq(t, `{"type":"CustomConnection","module":"promptflow.connections","value":{"endpoint":"e","token":"t0ken","n":3},"secret_keys":["api_key","token"]}`,
		string(value.Encode(box.Dict())))
	must.Eq(t, 3, set.Dict().Len())
	must.Eq(t, []string{"t0ken", "s3cret", "sk-file"}, set.Secrets())
}

func TestConnection_ShowsNoSecret(t *testing.T) {
	t.Parallel()
	set, err := Load(write(t, sample), lookup("THE_KEY", "s3cret"))
	must.NoError(t, err)
	for _, name := range set.Names() {
		c, err := set.Get(name)
		must.NoError(t, err)
		for _, verb := range []string{"%s", "%v", "%+v", "%#v"} {
			text := fmt.Sprintf(verb, c)
			for _, secret := range set.Secrets() {
				must.StrNotContains(t, text, secret)
			}
			must.StrContains(t, text, "**data_scrubbed**")
		}
	}
}

func TestLoad_RefusesBadFiles(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, content, want string }{
		{"no JSON", `{"a": `, "Expecting value"},
		{"a list", `[]`, "expected a JSON object, got list"},
		{"entry that is no object", `{"a": 1}`, `connection "a": want an object with "type" and "value", got int`},
		{"unknown type", `{"a": {"type": "FooConnection", "value": {}}}`, `unknown type "FooConnection", want one of OpenAIConnection`},
		{"no value", `{"a": {"type": "OpenAIConnection"}}`, `"value" must be an object`},
		{"missing variable", `{"a": {"type": "OpenAIConnection", "value": {"api_key": "${env:GONE}"}}}`, "environment variable GONE is not found, which its api_key refers to"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(write(t, c.content), lookup())
			must.ErrorContains(t, err, c.want)
			must.ErrorContains(t, err, "load connections /")
		})
	}
	_, err := LoadEnv(lookup(FileVariable, "/does/not/exist"))
	must.ErrorIs(t, err, os.ErrNotExist)
}

func TestGet_MakesConnectionsOfTheEnvironment(t *testing.T) {
	t.Parallel()
	set, err := LoadEnv(lookup("OPENAI_API_KEY", "k", "OPENAI_BASE_URL", "http://h/v1", "AZURE_OPENAI_ENDPOINT", "https://a", "AZURE_OPENAI_API_KEY", "ak",
		"AZURE_OPEN_AI_CONNECTION_API_BASE", "https://override"))
	must.NoError(t, err)
	o, err := set.Get("open_ai_connection")
	must.NoError(t, err)
	must.Eq(t, OpenAI, o.Class)
	must.Eq(t, "http://h/v1", o.BaseURL())
	a, err := set.Get("azure_open_ai_connection")
	must.NoError(t, err)
	must.Eq(t, "https://override", a.BaseURL())
	must.Eq(t, "ak", a.APIKey())
	must.Eq(t, []string{"azure_open_ai_connection", "open_ai_connection"}, set.Names())
}

func TestGet_SaysWhatToSet(t *testing.T) {
	t.Parallel()
	set, err := LoadEnv(lookup())
	must.NoError(t, err)
	_, err = set.Get("open_ai_connection")
	must.EqError(t, err, "Connection 'open_ai_connection' not found in dict connection provider. Available keys are []. "+
		"To mend it, set PROMPTFLOW_CONNECTIONS to a connections file that has it, "+
		"or set OPENAI_API_KEY (and if needed OPENAI_BASE_URL and OPENAI_ORG_ID) in the environment.")
	must.Eq(t, "ConnectionNotFound", api.AsError(err).Class())

	path := write(t, sample)
	set, err = Load(path, lookup("THE_KEY", "k"))
	must.NoError(t, err)
	_, err = set.Get("boxes")
	must.EqError(t, err, "Connection 'boxes' not found in dict connection provider. Available keys are ['box', 'my azure', 'open_ai_connection']. To mend it, add it to "+path+".")
}

func TestEnvReference(t *testing.T) {
	t.Parallel()
	cases := []struct {
		text, name string
		ok         bool
	}{
		{"${env:A}", "A", true},
		{"  ${env:A B}\n", "A B", true},
		{"${env:}", "", false},
		{"${env:A", "", false},
		{"x${env:A}", "", false},
		{"${env:A}x", "", false},
		{"${env:}}", "}", true},
		{"", "", false},
	}
	for _, c := range cases {
		name, ok := envReference(c.text)
		must.Eq(t, c.ok, ok, must.Sprintf("%q", c.text))
		must.Eq(t, c.name, name)
	}
}

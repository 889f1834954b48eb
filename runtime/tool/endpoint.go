package tool

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
)

// defaultOpenAIURL is where OpenAI's own client goes when nothing else is said.
const defaultOpenAIURL = "https://api.openai.com/v1"

// endpoint is where a node's requests go and how they sign in.
type endpoint struct {
	connection string // name
	class      string
	base       string // without a slash at the end
	azure      bool
	path       string // below base, or below the deployment
	query      string
	header     http.Header // has secrets
}

// endpointOf reads an endpoint from a connection as promptflow-tools' clients do. For what an OpenAI connection leaves out
// OpenAI's client asks the environment, and so do we.
func endpointOf(c *connection.Connection, set *connection.Set, apiName string) (endpoint, *api.Error) {
	e := endpoint{connection: c.Name, class: c.Class, path: "/chat/completions", header: http.Header{}}
	if apiName == apiCompletion {
		e.path = "/completions"
	}
	var fault *api.Error
	if c.Class == connection.AzureOpenAI {
		fault = e.setAzure(c)
	} else {
		fault = e.setOpenAI(c, set)
	}
	if fault == nil {
		fault = e.check()
	}
	return e, fault
}

func (e *endpoint) setAzure(c *connection.Connection) *api.Error {
	if c.APIKey() == "" {
		return invalidFlow("InvalidConnectionType",
			"Connection '%s' has no api_key (auth_mode %q), and Microsoft Entra sign-in is not supported yet by this runtime: give the connection an api_key and auth_mode \"key\".",
			c.Name, c.Text("auth_mode"))
	}
	version := c.Text("api_version")
	if version == "" {
		version = connection.DefaultAzureAPIVersion
	}
	e.azure = true
	e.base = strings.TrimRight(c.BaseURL(), "/")
	e.query = url.Values{"api-version": {version}}.Encode()
	e.header.Set("Api-Key", c.APIKey())
	e.header.Set("Ms-Azure-Ai-Promptflow-Called-From", "aoai-tool")
	return nil
}

func (e *endpoint) setOpenAI(c *connection.Connection, set *connection.Set) *api.Error {
	e.base = c.BaseURL()
	if c.Class == connection.Serverless && !strings.HasSuffix(e.base, "/v1") {
		e.base += "/v1"
	}
	e.base = strings.TrimRight(firstText(e.base, set.Env("OPENAI_BASE_URL"), defaultOpenAIURL), "/")
	key := firstText(c.APIKey(), set.Env("OPENAI_API_KEY"))
	if key == "" {
		return invalidFlow("InvalidConnectionType", "Connection '%s' has no api_key: set it in the connection or as OPENAI_API_KEY; an endpoint without keys takes any text.", c.Name)
	}
	e.header.Set("Authorization", "Bearer "+key)
	if org := firstText(c.Text("organization"), set.Env("OPENAI_ORG_ID")); org != "" {
		e.header.Set("Openai-Organization", org)
	}
	if project := set.Env("OPENAI_PROJECT_ID"); project != "" {
		e.header.Set("Openai-Project", project)
	}
	return nil
}

func firstText(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// check refuses a base that is no URL, before any request.
func (e *endpoint) check() *api.Error {
	u, err := url.Parse(e.base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return invalidFlow("InvalidConnectionType", "Connection '%s' has the endpoint %q, which is no http or https URL: set its %s.",
			e.connection, redactURL(e.base), e.field())
	}
	return nil
}

// field is the connection's field that holds the endpoint.
func (e *endpoint) field() string {
	if e.class == connection.OpenAI {
		return "base_url"
	}
	return "api_base"
}

// url returns the request's URL for a model. Azure's has the deployment in its path.
func (e *endpoint) url(model string) string {
	u := e.base
	if e.azure {
		u += "/openai/deployments/" + url.PathEscape(model)
	}
	u += e.path
	if e.query != "" {
		u += "?" + e.query
	}
	return u
}

// redactURL removes a password from a URL that is to be shown.
func redactURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "(unreadable)"
	}
	return u.Redacted()
}

package registry

import (
	"path/filepath"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
)

func TestNew_refuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{Hosts: map[string]Host{"": {}}}, "must be a host or host:port"},
		{Config{Hosts: map[string]Host{"https://reg.example": {}}}, "must be a host or host:port"},
		{Config{Hosts: map[string]Host{"reg.example/team": {}}}, "must be a host or host:port"},
		{Config{Hosts: map[string]Host{"docker.io": {}, "index.docker.io": {}}}, "two blocks for docker.io"},
		{Config{Hosts: map[string]Host{"r": {CAFile: "ca.pem"}}}, `ca_file "ca.pem": must be an absolute path`},
		{Config{Hosts: map[string]Host{"r": {CertFile: "/c.pem"}}}, "cert_file and key_file: one needs the other"},
		{Config{Hosts: map[string]Host{"r": {PlainHTTP: true, CAFile: "/ca.pem"}}}, "plain_http"},
		{Config{Hosts: map[string]Host{"r": {Password: "x"}}}, "password without username"},
		{Config{Hosts: map[string]Host{"r": {Mirrors: []string{"ftp://m"}}}}, `mirrors "ftp://m"`},
		{Config{Hosts: map[string]Host{"r": {Mirrors: []string{""}}}}, `mirrors ""`},
		{Config{Hosts: map[string]Host{"r": {Mirrors: []string{"https://me:pw@m"}}}}, "mirrors"},
		{Config{AuthFile: "config.json"}, "auth.config"},
		{Config{AuthHelper: "/usr/bin/docker-credential-x"}, "auth.helper"},
	} {
		_, err := New(c.config)
		must.ErrorContains(t, err, c.want)
	}
}

func TestParseMirror(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]mirror{
		"m.example":                  {host: "m.example", path: "/v2"},
		"m.example:5000":             {host: "m.example:5000", path: "/v2"},
		"https://m.example/":         {scheme: "https", host: "m.example", path: "/v2"},
		"http://m.example":           {scheme: "http", host: "m.example", path: "/v2"},
		"https://m.example/hub":      {scheme: "https", host: "m.example", path: "/hub/v2"},
		"https://m.example/v2/proxy": {scheme: "https", host: "m.example", path: "/v2/proxy"},
		"[::1]:5000":                 {host: "[::1]:5000", path: "/v2"},
	} {
		got, err := parseMirror(text)
		must.NoError(t, err)
		test.True(t, want == got, test.Sprintf("%s: %+v", text, got))
	}
}

func TestCanonicalHost(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		dockerHubKey: "docker.io", "docker.io": "docker.io", "registry-1.docker.io": "docker.io", "index.docker.io": "docker.io",
		"reg.example": "reg.example", "Reg.Example:5000": "reg.example:5000", "https://reg.example/v2/": "reg.example",
		"http://reg.example:80": "reg.example:80", "docker.io.evil.example": "docker.io.evil.example",
	} {
		test.Eq(t, want, canonicalHost(name))
	}
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	ca := harness.NewAuthority(t)
	pair := ca.Issue("client")
	registries, err := New(Config{Hosts: map[string]Host{
		"docker.io":         {Mirrors: []string{"m.example", "http://lan.example/hub", "reg.example"}},
		"reg.example":       {CAFile: ca.File, CertFile: pair.CertFile, KeyFile: pair.KeyFile},
		"plain.example":     {PlainHTTP: true},
		"loose.example":     {InsecureSkipVerify: true},
		"127.0.0.1:5001":    {CAFile: ca.File},
		"gone.example":      {CAFile: filepath.Join(t.TempDir(), "none.pem")},
		"nonsense.example":  {CAFile: pair.KeyFile},
		"wrong-key.example": {CertFile: ca.File, KeyFile: pair.KeyFile},
	}})
	must.NoError(t, err)
	describe := func(name string) []string {
		t.Helper()
		endpoints, err := registries.endpoints(name)
		must.NoError(t, err)
		var list []string
		for _, e := range endpoints {
			list = append(list, e.Scheme+"://"+e.Host+e.Path)
		}
		return list
	}
	test.Eq(t, []string{"https://m.example/v2", "http://lan.example/hub/v2", "https://reg.example/v2", "https://registry-1.docker.io/v2"},
		describe("docker.io"))
	test.Eq(t, []string{"http://plain.example/v2"}, describe("plain.example"))
	test.Eq(t, []string{"https://other.example/v2"}, describe("other.example"))

	tlsOf := func(name string) (insecure, trusts, shows bool) {
		endpoints, err := registries.endpoints(name)
		must.NoError(t, err)
		config := endpoints[len(endpoints)-1].transport.TLSClientConfig
		return config.InsecureSkipVerify, config.RootCAs != nil, len(config.Certificates) == 1
	}
	for name, want := range map[string][3]bool{
		"other.example": {false, false, false}, "loose.example": {true, false, false}, "reg.example": {false, true, true},
	} {
		insecure, trusts, shows := tlsOf(name)
		test.Eq(t, want, [3]bool{insecure, trusts, shows}, test.Sprint(name))
	}

	for name, want := range map[string]string{
		"gone.example": "ca_file", "nonsense.example": "no certificate in PEM", "wrong-key.example": "cert_file and key_file",
	} {
		_, err := registries.endpoints(name)
		must.ErrorContains(t, err, want)
		must.ErrorContains(t, err, name)
	}
}

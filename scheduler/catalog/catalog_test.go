package catalog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func TestNewStatic_fills_in_defaults_and_sorts(t *testing.T) {
	t.Parallel()
	table, err := NewStatic([]Runtime{
		{Name: "shared", Instances: []Instance{{Address: "127.0.0.1:1"}, {Address: "127.0.0.1:2", Concurrency: 4}}},
		{Name: "ada", Type: Pinned, Owner: "ada@example.org", Instances: []Instance{{ID: "desk", Address: "unix:/run/pf.sock"}}},
	})
	must.NoError(t, err)
	must.Len(t, 2, table.Runtimes())
	test.Eq(t, "ada", table.Runtimes()[0].Name)
	shared := table.Runtime("shared")
	must.NotNil(t, shared)
	test.Eq(t, Shared, shared.Type)
	test.Eq(t, []Instance{
		{ID: "shared-0", Address: "127.0.0.1:1", Concurrency: DefaultConcurrency},
		{ID: "shared-1", Address: "127.0.0.1:2", Concurrency: 4},
	}, shared.Instances)
	test.Nil(t, table.Runtime("Shared"))
}

func TestNewStatic_refuses(t *testing.T) {
	t.Parallel()
	one := []Instance{{Address: "127.0.0.1:1"}}
	tests := map[string]struct {
		runtimes []Runtime
		says     string
	}{
		"a bad name":            {[]Runtime{{Name: "a/b", Instances: one}}, `runtime "a/b": a name has`},
		"an unknown type":       {[]Runtime{{Name: "a", Type: "big", Instances: one}}, `type "big": must be shared or pinned`},
		"a shared owner":        {[]Runtime{{Name: "a", Owner: "x", Instances: one}}, "only a pinned runtime has an owner"},
		"a pinned one unowned":  {[]Runtime{{Name: "a", Type: Pinned, Instances: one}}, "needs an owner"},
		"two pinned instances":  {[]Runtime{{Name: "a", Type: Pinned, Owner: "x", Instances: append(one, one...)}}, "one instance, not 2"},
		"no instances":          {[]Runtime{{Name: "a"}}, "it has no instances"},
		"a name twice":          {[]Runtime{{Name: "a", Instances: one}, {Name: "a", Instances: one}}, "is there twice"},
		"an instance twice":     {[]Runtime{{Name: "a", Instances: []Instance{{ID: "i", Address: ":1"}}}, {Name: "b", Instances: []Instance{{ID: "i", Address: "h:1"}}}}, `in runtime "a" already`},
		"a negative number":     {[]Runtime{{Name: "a", Instances: []Instance{{Address: "h:1", Concurrency: -1}}}}, "must be at least 1"},
		"a token with newlines": {[]Runtime{{Name: "a", Instances: []Instance{{Address: "h:1", Token: "a\r\nb"}}}}, "its token has"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := NewStatic(tc.runtimes)
			test.ErrorContains(t, err, tc.says)
		})
	}
}

func TestParseAddress(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		want Address
		says string
	}{
		"http://127.0.0.1:8080":                {want: Address{"tcp", "127.0.0.1:8080", "127.0.0.1:8080"}},
		"http://127.0.0.1:8080/":               {want: Address{"tcp", "127.0.0.1:8080", "127.0.0.1:8080"}},
		"host.example:1":                       {want: Address{"tcp", "host.example:1", "host.example:1"}},
		"http://[::1]:80":                      {want: Address{"tcp", "[::1]:80", "[::1]:80"}},
		"unix:/run/a.sock":                     {want: Address{"unix", "/run/a.sock", "runtime"}},
		"unix:///run/a.sock":                   {want: Address{"unix", "/run/a.sock", "runtime"}},
		"":                                     {says: "must be"},
		"host":                                 {says: "must be"},
		":80":                                  {says: "must be"},
		"http://host:80/path":                  {says: "must be"},
		"http://user@host:80":                  {says: "must be"},
		"host\r\nX: y:80":                      {says: "must be"},
		"ftp://host:80":                        {says: "must be"},
		"https://host:80":                      {says: "https is not supported"},
		"host:0":                               {says: "the port"},
		"host:65536":                           {says: "the port"},
		"host:http":                            {says: "the port"},
		"unix:run/a.sock":                      {says: "absolute"},
		"unix:/" + strings.Repeat("long", 100): {says: "more than the 107"},
	}
	for text, tc := range tests {
		got, err := ParseAddress(text)
		if tc.says != "" {
			test.ErrorContains(t, err, tc.says, test.Sprint(text))
			continue
		}
		test.NoError(t, err, test.Sprint(text))
		test.Eq(t, tc.want, got)
	}
}

func TestJoin_collects_the_instances_of_a_name(t *testing.T) {
	t.Parallel()
	runtimes, err := Join([]string{"a=h:1", "b=h:2", "a=h:3"})
	must.NoError(t, err)
	test.Eq(t, []Runtime{
		{Name: "a", Instances: []Instance{{Address: "h:1"}, {Address: "h:3"}}},
		{Name: "b", Instances: []Instance{{Address: "h:2"}}},
	}, runtimes)
	for _, text := range []string{"", "a", "=h:1", "a=", "a=b"} {
		_, err := Join([]string{text})
		test.ErrorContains(t, err, "must be", test.Sprint(text))
	}
}

func TestNear_finds_what_was_meant(t *testing.T) {
	t.Parallel()
	in := func(port string) []Instance { return []Instance{{Address: "h:" + port}} }
	table, err := NewStatic([]Runtime{
		{Name: "shared", Instances: in("1")}, {Name: "shared-gpu", Instances: in("2")}, {Name: "staging", Instances: in("3")}, {Name: "x", Instances: in("4")},
	})
	must.NoError(t, err)
	tests := map[string][]string{
		"shraed": {"shared"}, "Shared": {"shared"}, "shared-gpt": {"shared-gpu"}, "sha": {"shared", "shared-gpu"}, "production": nil,
	}
	for name, want := range tests {
		test.Eq(t, want, table.Near(name), test.Sprint(name))
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	must.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestLoad_reads_hcl_and_json(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "token", "secret\n")
	want := []Runtime{{Name: "shared", Type: "shared", Instances: []Instance{
		{ID: "a", Address: "http://10.0.0.7:8080", Concurrency: 4, Token: "secret"}, {ID: "b", Address: "unix:/run/b.sock"},
	}}}
	hcl := write(t, dir, "catalog.conf", `
runtime "shared" {
  type = "shared"
  instance "a" {
    address     = "http://10.0.0.7:8080"
    concurrency = 4
    token_file  = "token"
  }
  instance "b" { address = "unix:/run/b.sock" }
}`)
	json := write(t, dir, "catalog.json", `{"runtime":{"shared":{"type":"shared","instance":{
		"a":{"address":"http://10.0.0.7:8080","concurrency":4,"token_file":"token"},"b":{"address":"unix:/run/b.sock"}}}}}`)
	for _, path := range []string{hcl, json} {
		got, err := Load(path)
		must.NoError(t, err)
		test.Eq(t, want, got)
	}
}

func TestLoad_says_where_the_mistake_is(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "empty", "\n")
	tests := map[string]struct{ text, says string }{
		"syntax":            {"runtime \"a\" {\n  type = \n}", "a.hcl:2"},
		"an unknown option": {"runtime \"a\" {\n  count = 2\n}", "a.hcl:2"},
		"no token":          {"runtime \"a\" {\n instance \"i\" {\n address = \"h:1\"\n token_file = \"gone\"\n}\n}", "no such file"},
		"an empty token":    {"runtime \"a\" {\n instance \"i\" {\n address = \"h:1\"\n token_file = \"empty\"\n}\n}", "is empty"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Load(write(t, dir, "a.hcl", tc.text))
			test.ErrorContains(t, err, tc.says)
		})
	}
	_, err := Load(filepath.Join(dir, "gone.hcl"))
	must.ErrorIs(t, err, os.ErrNotExist)
}

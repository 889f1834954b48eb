package connection

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// FileVariable is the environment variable that names the connections file.
const FileVariable = "PROMPTFLOW_CONNECTIONS"

// maxFile bounds the connections file, in bytes.
const maxFile = 16 << 20

// module is the Python module of prompt flow's own connection classes.
const module = "promptflow.connections"

// Lookup returns an environment variable and whether it is set; os.LookupEnv is one.
type Lookup func(name string) (string, bool)

// Set is the connections that flows may name. It does not change once loaded.
type Set struct {
	path        string
	connections map[string]*Connection
	env         Lookup
}

// Load reads the connections file at path ("" means there is none) and applies the environment to it as prompt flow's serving
// does: {CONNECTION}_{FIELD} replaces a field's value, then "${env:NAME}" values are looked up.
func Load(path string, env Lookup) (*Set, error) {
	s := &Set{path: path, connections: map[string]*Connection{}, env: env}
	if path == "" {
		return s, nil
	}
	dict, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("load connections %s: %w", path, err)
	}
	for name, entry := range dict.All() {
		c, err := s.parse(name, entry)
		if err != nil {
			return nil, fmt.Errorf("load connections %s: connection %q: %w", path, name, err)
		}
		s.connections[name] = c
	}
	return s, nil
}

// LoadEnv loads the file that PROMPTFLOW_CONNECTIONS names in env.
func LoadEnv(env Lookup) (*Set, error) {
	path, _ := env(FileVariable)
	return Load(path, env)
}

func readFile(path string) (*value.Dict, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("file has %d bytes, more than %d", info.Size(), maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return value.DecodeDict(data)
}

// parse makes a connection of its entry in the file: {"type", "module", "value", "secret_keys"}.
func (s *Set) parse(name string, entry any) (*Connection, error) {
	dict, ok := entry.(*value.Dict)
	if !ok {
		return nil, fmt.Errorf(`want an object with "type" and "value", got %s`, value.TypeName(entry))
	}
	class, _ := get[string](dict, "type")
	if !slices.Contains(classes, class) {
		return nil, fmt.Errorf("unknown type %q, want one of %s", class, strings.Join(classes, ", "))
	}
	values, ok := get[*value.Dict](dict, "value")
	if !ok {
		return nil, fmt.Errorf(`"value" must be an object`)
	}
	c := &Connection{Name: name, Class: class, Module: module, values: values.Clone(), secrets: slices.Clone(secretFields)}
	if m, ok := get[string](dict, "module"); ok && m != "" {
		c.Module = m
	}
	if keys, ok := get[[]any](dict, "secret_keys"); ok {
		c.secrets = texts(keys, c.secrets)
	}
	return c, s.applyEnvironment(c)
}

// texts appends the strings of list to those in known that it lacks.
func texts(list []any, known []string) []string {
	for _, item := range list {
		if s, ok := item.(string); ok && !slices.Contains(known, s) {
			known = append(known, s)
		}
	}
	return known
}

func get[T any](d *value.Dict, key string) (T, bool) {
	v, _ := d.Get(key)
	t, ok := v.(T)
	return t, ok
}

// applyEnvironment replaces field values by the environment's, in prompt flow's order: overrides first, references after.
func (s *Set) applyEnvironment(c *Connection) error {
	prefix := strings.ReplaceAll(c.Name, " ", "_") + "_"
	for _, field := range c.values.Keys() {
		if v, ok := s.env(strings.ToUpper(prefix + field)); ok {
			c.values.Set(field, v)
		}
		name, ok := envReference(c.Text(field))
		if !ok {
			continue
		}
		v, ok := s.env(name)
		if !ok {
			return fmt.Errorf("environment variable %s is not found, which its %s refers to: set it, or give %s a value", name, field, field)
		}
		c.values.Set(field, v)
	}
	return nil
}

// envReference reads "${env:NAME}".
func envReference(text string) (string, bool) {
	text = value.Strip(text)
	name, ok := strings.CutPrefix(text, "${env:")
	if !ok || !strings.HasSuffix(name, "}") || len(name) < 2 || strings.Contains(name, "\n") {
		return "", false
	}
	return name[:len(name)-1], true
}

// Env returns an environment variable as the set was loaded with it, or "".
func (s *Set) Env(name string) string {
	v, _ := s.env(name)
	return v
}

// Get returns the connection of a name: from the file, else one of the two that the environment can make. The error is
// prompt flow's, with what to set.
func (s *Set) Get(name string) (*Connection, error) {
	if c, ok := s.connections[name]; ok {
		return c, nil
	}
	c, err := s.fromEnvironment(name)
	if c != nil || err != nil {
		return c, err
	}
	return nil, s.notFound(name)
}

func (s *Set) notFound(name string) error {
	mend := "set " + FileVariable + " to a connections file that has it"
	if s.path != "" {
		mend = "add it to " + s.path
	}
	if r, ok := recipes[name]; ok {
		mend += ", or set " + r.hint()
	}
	known := make([]any, 0, len(s.connections))
	for _, n := range s.Names() {
		known = append(known, n)
	}
	return api.NewError([]string{api.UserError, "ConnectionNotFound"}, "Core",
		"Connection %s not found in dict connection provider. Available keys are %s. To mend it, %s.",
		value.Repr(name), value.Repr(known), mend)
}

// Names returns the names of all connections there are, sorted.
func (s *Set) Names() []string {
	names := slices.Collect(maps.Keys(s.connections))
	for name := range recipes {
		if _, ok := s.connections[name]; ok {
			continue
		}
		if c, err := s.fromEnvironment(name); c != nil && err == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Dict returns all connections in executor JSON by name, with their secrets: what Python workers take.
func (s *Set) Dict() *value.Dict {
	d := value.NewDict()
	for _, name := range s.Names() {
		if c, err := s.Get(name); err == nil {
			d.Set(name, c.Dict())
		}
	}
	return d
}

// Secrets returns every connection's secret values, for scrubbing logs.
func (s *Set) Secrets() []string {
	var secrets []string
	for _, name := range s.Names() {
		if c, err := s.Get(name); err == nil {
			secrets = append(secrets, c.Secrets()...)
		}
	}
	return secrets
}

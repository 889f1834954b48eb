// Package catalog says which runtimes there are and where their instances listen.
//
// [Table] is a snapshot of it: it never changes, so that a request looks things up without a lock. [NewStatic] makes one from a
// list, [Load] from a file and [ParseInstance] reads an instance from a command line. Nothing here opens a connection.
package catalog

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// The types of runtimes.
const (
	Shared = "shared"
	Pinned = "pinned"
)

// DefaultConcurrency is how many runs an instance takes at once where nobody says otherwise; it is the runtime's own default.
const DefaultConcurrency = 32

// Runtime is a named runtime and its instances.
type Runtime struct {
	Name      string
	Type      string // Shared (default) or Pinned
	Owner     string // of a pinned runtime
	Instances []Instance
}

// Instance is one allocation of a runtime.
type Instance struct {
	ID          string // unique in the table; default the runtime's name and a number
	Address     string // http://HOST:PORT, HOST:PORT or unix:/PATH
	Concurrency int    // runs at once; default DefaultConcurrency
	Token       string // bearer token that the instance asks for; default none
}

// Table is an unchangeable snapshot of all runtimes.
type Table struct {
	runtimes []*Runtime // by name
	byName   map[string]*Runtime
}

// validName is a runtime's or an instance's name: it stands in URLs, service names and log lines.
var validName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$`)

// NewStatic checks the runtimes, fills in defaults and makes a table of them. All mistakes are reported at once.
func NewStatic(runtimes []Runtime) (*Table, error) {
	t := &Table{byName: make(map[string]*Runtime, len(runtimes))}
	ids := map[string]string{}
	var errs []error
	for _, given := range runtimes {
		r := given.withDefaults()
		if t.byName[r.Name] != nil {
			errs = append(errs, fmt.Errorf("runtime %q is there twice: give all its instances in one place", r.Name))
			continue
		}
		errs = append(errs, r.check(ids)...)
		t.byName[r.Name] = r
		t.runtimes = append(t.runtimes, r)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.SortFunc(t.runtimes, func(a, b *Runtime) int { return strings.Compare(a.Name, b.Name) })
	return t, nil
}

func (r Runtime) withDefaults() *Runtime {
	if r.Type == "" {
		r.Type = Shared
	}
	r.Instances = slices.Clone(r.Instances)
	for i := range r.Instances {
		in := &r.Instances[i]
		if in.ID == "" {
			in.ID = fmt.Sprintf("%s-%d", r.Name, i)
		}
		if in.Concurrency == 0 {
			in.Concurrency = DefaultConcurrency
		}
	}
	return &r
}

// check finds everything that is wrong with the runtime; ids are the instances seen so far and their runtimes.
func (r *Runtime) check(ids map[string]string) []error {
	var errs []error
	add := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("runtime %q: %w", r.Name, fmt.Errorf(format, args...)))
	}
	if !validName.MatchString(r.Name) {
		add("a name has 1 to 128 letters, digits, '.', '_' and '-', and begins and ends with a letter or digit")
	}
	switch {
	case r.Type != Shared && r.Type != Pinned:
		add("type %q: must be shared or pinned", r.Type)
	case r.Type == Shared && r.Owner != "":
		add("owner %q: only a pinned runtime has an owner", r.Owner)
	case r.Type == Pinned && r.Owner == "":
		add("a pinned runtime needs an owner")
	case r.Type == Pinned && len(r.Instances) > 1:
		add("a pinned runtime has one instance, not %d", len(r.Instances))
	}
	if len(r.Instances) == 0 {
		add("it has no instances: give at least one address")
	}
	for _, in := range r.Instances {
		if other, taken := ids[in.ID]; taken {
			add("instance %q is in runtime %q already: instances need names of their own", in.ID, other)
		}
		ids[in.ID] = r.Name
		if err := in.check(); err != nil {
			add("instance %q: %w", in.ID, err)
		}
	}
	return errs
}

func (in Instance) check() error {
	if !validName.MatchString(in.ID) {
		return errors.New("a name has 1 to 128 letters, digits, '.', '_' and '-', and begins and ends with a letter or digit")
	}
	if _, err := ParseAddress(in.Address); err != nil {
		return err
	}
	if in.Concurrency < 1 {
		return fmt.Errorf("concurrency %d: must be at least 1", in.Concurrency)
	}
	if strings.ContainsFunc(in.Token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return errors.New("its token has spaces or characters that a header cannot carry")
	}
	return nil
}

// Runtimes returns all runtimes in the order of their names. Nobody may change them.
func (t *Table) Runtimes() []*Runtime { return t.runtimes }

// Runtime returns the runtime of this name, or nil.
func (t *Table) Runtime(name string) *Runtime { return t.byName[name] }

// Near returns up to three names that someone who wrote name may have meant, the nearest first.
func (t *Table) Near(name string) []string {
	type candidate struct {
		name     string
		distance int
	}
	bound := max(2, len(name)/3)
	var found []candidate
	for _, r := range t.runtimes {
		d := levenshtein.Distance(strings.ToLower(name), strings.ToLower(r.Name), nil)
		if d <= bound || (len(name) >= 3 && strings.HasPrefix(r.Name, name)) {
			found = append(found, candidate{r.Name, d})
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return a.distance - b.distance })
	var names []string
	for _, c := range found[:min(3, len(found))] {
		names = append(names, c.name)
	}
	return names
}

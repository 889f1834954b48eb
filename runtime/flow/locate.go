package flow

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow/document"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// flowFiles are the names that make a folder a flow, in prompt flow's order.
var flowFiles = []string{"flow.dag.yaml", "flow.dag.yml", "flow.flex.yaml", "flow.flex.yml"}

// locate returns the name of the one flow file in a folder.
func locate(dir fs.FS) (string, error) {
	var found []string
	for _, name := range flowFiles {
		info, err := fs.Stat(dir, name)
		switch {
		case err == nil && info.Mode().IsRegular():
			found = append(found, name)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return "", unreadable(name, err)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return withoutYAML(dir)
	default:
		return "", api.NewError(user("ValidationError"), TargetUnknown,
			"Multiple files %s exist in the flow folder. Please specify a file or remove the extra YAML file.", strings.Join(found, ", ")).At(found[1], 1, 1)
	}
}

// withoutYAML finds the one prompty file of a folder that has no flow.*.yaml.
func withoutYAML(dir fs.FS) (string, error) {
	const nothing = "Have found neither flow.dag.yaml nor flow.flex.yaml in the flow folder"
	prompty, _ := fs.Glob(dir, "*"+promptyExtension)
	switch len(prompty) {
	case 1:
		return prompty[0], nil
	case 0:
		return "", api.NewError(user(), TargetUnknown, nothing+". Please name the folder that holds one.")
	default:
		return "", api.NewError(user(), TargetUnknown, nothing+" and there are more than 1 prompty file. Please name one of %s.", strings.Join(prompty, ", "))
	}
}

// flowSuffixes are the suffixes of files that are flows (prompt flow's FLOW_FILE_SUFFIX).
var flowSuffixes = []string{".yaml", ".yml", promptyExtension}

// checkFile checks the path of a flow's file and returns it in its plain form.
func checkFile(dir fs.FS, name string) (string, error) {
	plain := path.Clean(name)
	if !fs.ValidPath(plain) {
		return "", api.NewError(user(), TargetUnknown, "The flow file %s is outside of the flow folder. Please name a file inside of it.", name)
	}
	if !slices.Contains(flowSuffixes, strings.ToLower(path.Ext(plain))) {
		return "", api.NewError(user(), TargetUnknown, "The flow file suffix must be yaml, yml or prompty; cannot be %s", path.Ext(plain))
	}
	info, err := fs.Stat(dir, plain)
	if err != nil || !info.Mode().IsRegular() {
		return "", api.NewError(user(), TargetUnknown, "Flow file %s does not exist. Please name a file in the flow folder.", name)
	}
	return plain, nil
}

func unreadable(name string, err error) error {
	return api.NewError(user(), TargetUnknown, "The flow file %s cannot be read: %v. Please check the file's type and permissions.", name, err)
}

// read reads the flow's file as a document.
func (l loader) read(dir fs.FS) (*document.Node, error) {
	text, err := readFile(dir, l.file, document.MaxBytes)
	if err != nil {
		return nil, err
	}
	return l.parse(text)
}

// parse reads YAML.
func (l loader) parse(text []byte) (*document.Node, error) {
	read := document.Parse
	if l.report != nil {
		read = func(text []byte) (*document.Node, error) {
			return document.ParseAll(text, func(e *document.Error) { l.report(yamlError(l.file, e)) })
		}
	}
	root, err := read(text)
	if err != nil {
		return nil, yamlError(l.file, err)
	}
	return root, nil
}

// readFile reads at most one byte more than limit.
func readFile(dir fs.FS, name string, limit int64) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, unreadable(name, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, unreadable(name, err)
	}
	return text, nil
}

func yamlError(file string, err error) error {
	var at *document.Error
	if !errors.As(err, &at) {
		return unreadable(file, err)
	}
	return api.NewError(YAMLError, TargetUnknown, "Error while parsing yaml file: %s: line %d, column %d: %s. Please correct the YAML and try again.",
		file, at.Line, at.Column, strings.TrimSuffix(at.Message, ".")).At(file, at.Line, at.Column)
}

// refuse is the error for what this runtime does not support; mend says what to do.
func refuse(p Place, what, mend string) *api.Error {
	return p.At(Fail(NotSupported, TargetExecutor, "{what} (line {line}) is not supported by this runtime. Please {mend}.",
		"what", what, "line", lineText(p), "mend", mend))
}

// Include is a file or folder outside of the flow folder that belongs to the flow (additional_includes).
type Include struct {
	Path string // as written: relative to the flow folder, or absolute
	Place
}

// Includes reads the additional includes of the flow in a folder; file names the flow's file, empty means the one there is. Whoever
// packs a flow needs them; a flow that is loaded has them in its folder already.
func Includes(dir fs.FS, file string) ([]Include, error) {
	name, err := pick(dir, file)
	if err != nil || path.Ext(name) == promptyExtension {
		return nil, err
	}
	l := loader{file: name}
	root, err := l.read(dir)
	if err != nil {
		return nil, err
	}
	f := root.Get("additional_includes")
	if f == nil || f.Value.IsNull() {
		return nil, nil
	}
	if f.Value.Kind != document.Sequence {
		return nil, l.definition(l.key(f), "The value of 'additional_includes' is not a list. Please write each path as a list item.")
	}
	var includes []Include
	for _, item := range f.Value.Items {
		v, err := item.Value()
		if err != nil {
			return nil, l.plainError(err)
		}
		includes = append(includes, Include{value.Str(v), l.at(item)})
	}
	return includes, nil
}

// pick returns the flow's file: the one that is named, or the one there is.
func pick(dir fs.FS, file string) (string, error) {
	if file == "" {
		return locate(dir)
	}
	return checkFile(dir, file)
}

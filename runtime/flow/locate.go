package flow

import (
	"errors"
	"io"
	"io/fs"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow/document"
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
		return "", missing(dir)
	default:
		return "", api.NewError(user("ValidationError"), TargetUnknown,
			"Multiple files %s exist in the flow folder. Please specify a file or remove the extra YAML file.", strings.Join(found, ", ")).At(found[1], 1, 1)
	}
}

func missing(dir fs.FS) error {
	if prompty, _ := fs.Glob(dir, "*.prompty"); len(prompty) > 0 {
		return refuse(Place{prompty[0], 1, 1}, "A prompty file", "run it inside a flow with a flow.dag.yaml")
	}
	return api.NewError(user(), TargetUnknown,
		"Have found neither flow.dag.yaml nor flow.flex.yaml in the flow folder. Please name the folder that holds flow.dag.yaml.")
}

func unreadable(name string, err error) error {
	return api.NewError(user(), TargetUnknown, "The flow file %s cannot be read: %v. Please check the file's type and permissions.", name, err)
}

// read reads the flow's file as a document.
func read(dir fs.FS, name string) (*document.Node, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, unreadable(name, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, document.MaxBytes+1))
	if err != nil {
		return nil, unreadable(name, err)
	}
	root, err := document.Parse(text)
	if err != nil {
		return nil, yamlError(name, err)
	}
	return root, nil
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

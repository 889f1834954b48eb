package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/api/bundle"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
)

// flowPath splits what the caller named into the flow's folder and, when it is a file, the file in it.
func flowPath(path string) (dir, file string, err error) {
	info, err := os.Stat(path)
	if err != nil || info.IsDir() {
		return path, "", nil //nolint:nilerr // whoever packs it says what is wrong
	}
	if !slices.Contains([]string{".yaml", ".yml", ".prompty"}, strings.ToLower(filepath.Ext(path))) {
		return "", "", fmt.Errorf("%w: %s is not a flow; name the folder of one, or a *.yaml, *.yml or *.prompty file", errUsage, path)
	}
	return filepath.Dir(path), filepath.Base(path), nil
}

// loadFlow reads a flow, nil when something is wrong with it.
func loadFlow(dir, file, variant string) *flow.Flow {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil
	}
	defer root.Close()
	f, err := flow.LoadWith(root.FS(), flow.Options{File: file, Variant: variant})
	if err != nil {
		return nil
	}
	return f
}

// packFlow packs a flow with what it includes from outside of its folder, and returns the bundle's name.
func packFlow(ctx context.Context, dir, file string, w io.Writer, warn func(string)) (string, error) {
	includes, err := includesOf(dir, file)
	if err != nil {
		return "", err
	}
	o := bundle.Options{File: file, Warn: warn}
	for _, i := range includes {
		o.Includes = append(o.Includes, i.Path)
	}
	name, _, err := bundle.PackWith(ctx, dir, o, w)
	var missing *bundle.MissingIncludeError
	if !errors.As(err, &missing) {
		return name, err
	}
	failure := api.NewError([]string{api.UserError}, "ControlPlaneSDK", "%s. Please correct the path, which is relative to the flow folder.", missing)
	for _, i := range includes {
		if i.Path == missing.Include {
			return "", i.At(failure)
		}
	}
	return "", failure
}

// includesOf reads what a flow includes; a folder without a flow has nothing to include, and packing says what is wrong with it.
func includesOf(dir, file string) ([]flow.Include, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil //nolint:nilerr // see above
	}
	defer root.Close()
	includes, err := flow.Includes(root.FS(), file)
	if err != nil && api.AsError(err).Location == nil {
		return nil, nil
	}
	return includes, err
}

// initValues reads -init: NAME=VALUE pairs, and files with objects.
func initValues(args []string) (json.RawMessage, error) {
	if len(args) == 0 {
		return nil, nil
	}
	members := map[string]json.RawMessage{}
	for _, arg := range args {
		name, text, isPair := strings.Cut(arg, "=")
		if isPair && name != "" {
			members[name] = initValue(text)
			continue
		}
		data, err := os.ReadFile(arg)
		if err != nil {
			return nil, fmt.Errorf("%w: -init %q: want NAME=VALUE or a JSON file: %w", errUsage, arg, err)
		}
		if err := checkObject(arg, data); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, &members); err != nil {
			return nil, fmt.Errorf("read init values of %s: %w", arg, err)
		}
	}
	return json.Marshal(members)
}

// initValue is a value's text as JSON where it is JSON, else as a string.
func initValue(text string) json.RawMessage {
	if json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	quoted, _ := json.Marshal(text) // a string always has JSON
	return quoted
}

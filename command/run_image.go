package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/media"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// mayHoldImages tells apart what cannot hold an image, which is nearly everything, without decoding it.
func mayHoldImages(document []byte) bool {
	return bytes.Contains(document, []byte("data:image/")) || bytes.Contains(document, []byte("image_file"))
}

// inlineLines puts the images that a data file names by a path, relative to the file's folder, into its lines.
func inlineLines(lines []json.RawMessage, file string) error {
	dir := "."
	if file != "-" {
		dir = filepath.Dir(file)
	}
	for i, line := range lines {
		var err error
		if lines[i], err = inlineImages(line, dir); err != nil {
			return fmt.Errorf("line %d of %s: %w", i, file, err)
		}
	}
	return nil
}

// inlineImages puts images that are named by a path, relative to dir, into a document: the runtime sees no file outside of the flow's
// folder. What is not there is left for the runtime to look for.
func inlineImages(document json.RawMessage, dir string) (json.RawMessage, error) {
	if !mayHoldImages(document) {
		return document, nil
	}
	v, err := value.Decode(document)
	if err != nil {
		return nil, err
	}
	v, err = media.Inline(v, func(path string) ([]byte, error) {
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		data, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("read image: %w", err)
		}
		return append([]byte{}, data...), nil
	})
	if err != nil {
		return nil, err
	}
	return value.Encode(v), nil
}

// saveImages writes the images among a result's outputs to files in dir, and their names in their place. Without a folder the
// images are left out of what people read, and stay in JSON.
func saveImages(result *api.RunResult, dir string, asJSON bool) error {
	save := func(i *value.Image) (string, error) { return media.Save(i, dir) }
	if dir == "" {
		if asJSON {
			return nil
		}
		save = func(i *value.Image) (string, error) {
			return fmt.Sprintf("(%d bytes, which -output-dir saves)", len(i.Data)), nil
		}
	}
	documents := []*json.RawMessage{&result.Output}
	for i := range result.Outputs {
		documents = append(documents, &result.Outputs[i])
	}
	for _, document := range documents {
		if !mayHoldImages(*document) {
			continue
		}
		v, err := value.Decode(*document)
		if err != nil {
			return fmt.Errorf("read outputs: %w", err)
		}
		if v, err = media.Extract(v, save); err != nil {
			return err
		}
		*document = value.Encode(v)
	}
	return nil
}

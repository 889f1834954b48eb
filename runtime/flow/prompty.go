package flow

import (
	"io/fs"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow/document"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

const (
	promptyExtension = ".prompty"
	maxPrompty       = 16 << 20 // bytes
)

// Card is a prompty file: what its front matter says, and the template below.
type Card struct {
	Config   *value.Dict // the front matter, references in it not followed
	Template string
	Line     int // where the template begins
}

// frontMatter is prompt flow's own pattern: the front matter reaches to the last line of dashes.
var frontMatter = regexp.MustCompile(`(?s)-{3,}\n(.*)-{3,}\n(.*)`)

// prompty reads a prompty file, and the document that is its front matter.
func (l loader) prompty(dir fs.FS) (*Flow, *document.Node, error) {
	text, err := l.promptyText(dir)
	if err != nil {
		return nil, nil, err
	}
	m := frontMatter.FindStringSubmatchIndex(text)
	if m == nil {
		return nil, nil, api.NewError(user(), TargetUnknown, "Illegal formatting of prompty. The prompt file is in markdown format and can be divided into two "+
			"parts, the first part is in YAML format and contains connection and model information. The second part is the prompt template.").At(l.file, 1, 1)
	}
	above := strings.Repeat("\n", strings.Count(text[:m[2]], "\n")) // so that places are those in the file
	root, err := l.parse([]byte(above + text[m[2]:m[3]]))
	if err != nil {
		return nil, nil, err
	}
	f, err := l.card(root, text[m[4]:m[5]])
	if f != nil {
		f.Card.Line = 1 + strings.Count(text[:m[4]], "\n")
	}
	return f, root, err
}

// promptyText reads the file as Python reads text: UTF-8, every line end a line feed.
func (l loader) promptyText(dir fs.FS) (string, error) {
	text, err := readFile(dir, l.file, maxPrompty)
	switch {
	case err != nil:
		return "", err
	case len(text) > maxPrompty:
		return "", api.NewError(user(), TargetUnknown, "The prompty file %s has more than 16 MiB. Please make it smaller.", l.file)
	case !utf8.Valid(text):
		return "", api.NewError(user(), TargetUnknown, "The prompty file %s is not UTF-8. Please save it as UTF-8.", l.file)
	}
	return strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(text)), nil
}

func (l loader) card(root *document.Node, template string) (*Flow, error) {
	if root.Kind != document.Mapping {
		return nil, l.definition(Place{l.file, 1, 1}, "The front matter of the prompty file is not a mapping of keys to values. Please correct it.")
	}
	if err := l.refuseLanguage(root); l.stop(err) {
		return nil, err
	}
	root.DatesAsText() // an api_version is mostly written as one
	f := &Flow{Form: Prompty, File: l.file, Card: &Card{Template: template}}
	var err error
	if f.Inputs, err = l.inputs(root); l.stop(err) {
		return nil, err
	}
	if f.Outputs, err = l.outputs(root); l.stop(err) {
		return nil, err
	}
	if err := l.names(f, root); l.stop(err) {
		return nil, err
	}
	if f.Name == "" {
		f.Name = strings.TrimSuffix(path.Base(l.file), promptyExtension)
	}
	config, err := root.Value()
	if err != nil {
		return nil, l.plainError(err)
	}
	f.Card.Config = config.(*value.Dict)
	return f, nil
}

package command

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

// message is an error as a person reads it: what was wrong and where, and prompt flow's class of it, by which its documentation
// can be searched.
func message(err error) string {
	var e *api.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	text := strings.TrimSpace(err.Error())
	if class := e.Class(); class != e.Code {
		text += fmt.Sprintf(" (%s)", strings.Join(e.Chain(), "/"))
	}
	return text
}

package server

import (
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// preflight answers browsers as prompt flow's serving app does: pages of any origin may score.
func preflight(w http.ResponseWriter, r *http.Request) {
	allowOrigin(w)
	w.Header().Set("Access-Control-Allow-Methods", "POST, OPTIONS")
	w.Header().Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
	w.WriteHeader(http.StatusNoContent)
}

func allowOrigin(w http.ResponseWriter) { w.Header().Set("Access-Control-Allow-Origin", "*") }

// scoring answers in prompt flow's serving shape, whose errors have a code and a message only.
func (s *server) scoring(e endpoint) http.Handler {
	inner := func(w http.ResponseWriter, r *http.Request) error {
		allowOrigin(w)
		err := s.guard(s.onlyTrusted(e), w, r)
		if err == nil {
			return nil
		}
		failure := api.AsError(err)
		simple := &api.Error{Code: failure.Code, Message: failure.Message, Status: failure.HTTPStatus(), RetryAfterSeconds: failure.RetryAfterSeconds}
		return simple
	}
	return s.answer(inner)
}

// score runs the served flow on one set of inputs, without aggregation nodes.
func (s *server) score(w http.ResponseWriter, r *http.Request) error {
	body, err := readBody(w, r, s.config.MaxBody, requestTimeout)
	if err != nil {
		return err
	}
	release, err := s.admit()
	if err != nil {
		return err
	}
	defer release()
	s.mu.Lock()
	served := s.served
	s.mu.Unlock()
	if served == nil {
		return fault([]string{"NotFound"}, http.StatusNotFound, "This runtime serves no flow. Please set PROMPTFLOW_FLOW, or submit to /v1/runs.")
	}
	inputs, err := scoreInputs(served.Flow(), body)
	if err != nil {
		return err
	}
	line := served.RunLine(r.Context(), requestID(r), inputs)
	if !line.Completed() {
		return line.Info.Error
	}
	if accept := acceptOf(r); !acceptsJSON(accept) {
		return notAcceptable(accept, "application/json")
	}
	writeJSON(w, http.StatusOK, value.Encode(served.Format().Base64(s.visible(served.Flow(), line.Output))))
	return nil
}

// requestID is the run's id: the caller's, or a new one.
func requestID(r *http.Request) string {
	for _, name := range []string{"X-Request-Id", "X-Ms-Client-Request-Id"} {
		if id := r.Header.Get(name); id != "" && len(id) <= 256 {
			return id
		}
	}
	return uuid.NewString()
}

func badRequest(class, text string) *api.Error {
	return api.NewError([]string{api.UserError, "BadRequest", class}, "ServingApp", "%s", text)
}

// scoreInputs reads the inputs of a request: a JSON object, or for a flow of one input its text.
func scoreInputs(f *flow.Flow, body []byte) (*value.Dict, error) {
	if len(f.Inputs) == 0 {
		return value.NewDict(), nil
	}
	v, err := value.Decode(body)
	if err != nil {
		if len(f.Inputs) > 1 {
			return nil, badRequest("JsonPayloadRequiredForMultipleInputFields",
				"Promptflow executor received non json data, but there's more than 1 input fields, please use json request data instead.")
		}
		if !utf8.Valid(body) {
			return nil, badRequest("BadRequest", "The request's body is neither JSON nor UTF-8 text. Please send JSON.")
		}
		inputs := value.NewDict()
		inputs.Set(f.Inputs[0].Name, string(body))
		return inputs, nil
	}
	return requireInputs(f, v)
}

func requireInputs(f *flow.Flow, v any) (*value.Dict, error) {
	inputs, isDict := v.(*value.Dict)
	var missing []any
	for _, in := range f.Inputs {
		if in.Default == nil && !inputs.Has(in.Name) {
			missing = append(missing, in.Name)
		}
	}
	if len(missing) > 0 {
		return nil, badRequest("MissingRequiredFlowInput", "Required input fields "+value.Repr(missing)+" are missing in request data "+value.Repr(v))
	}
	if !isDict {
		return nil, badRequest("BadRequest", "The request's body is not a JSON object but "+value.TypeName(v)+". Please send an object of input names and values.")
	}
	return inputs, nil
}

// visible leaves out the outputs that are for evaluation only, or all that PROMPTFLOW_RESPONSE_INCLUDED_FIELDS does not name.
func (s *server) visible(f *flow.Flow, output *value.Dict) *value.Dict {
	out := output.Clone()
	for _, o := range f.Outputs {
		hidden := o.EvaluationOnly
		if s.config.Included != nil {
			hidden = true
			for _, name := range s.config.Included {
				hidden = hidden && name != o.Name
			}
		}
		if hidden {
			out.Delete(o.Name)
		}
	}
	return out
}

// included reads PROMPTFLOW_RESPONSE_INCLUDED_FIELDS, a JSON list of names.
func included(text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	v, err := value.Decode([]byte(text))
	items, ok := v.([]any)
	if err != nil || !ok {
		return nil, &value.Error{Class: value.ValueError, Message: "read PROMPTFLOW_RESPONSE_INCLUDED_FIELDS: want a JSON list of output names"}
	}
	names := make([]string, 0, len(items))
	for _, item := range items {
		names = append(names, value.Str(item))
	}
	return names, nil
}

// mediaTypes returns the types of an Accept header, without their parameters.
func mediaTypes(accept string) []string {
	var types []string
	for part := range strings.SplitSeq(accept, ",") {
		name, _, _ := strings.Cut(part, ";")
		if name = strings.ToLower(strings.TrimSpace(name)); name != "" {
			types = append(types, name)
		}
	}
	return types
}

// acceptsJSON is prompt flow's rule: no header accepts everything; text/event-stream or text/* alone do not accept JSON.
func acceptsJSON(accept string) bool {
	types := mediaTypes(accept)
	for _, t := range types {
		if t == "application/json" || t == "application/*" || t == "*/*" {
			return true
		}
	}
	return len(types) == 0
}

func acceptOf(r *http.Request) string { return strings.Join(r.Header.Values("Accept"), ",") }

func notAcceptable(accept, supported string) *api.Error {
	e := flow.Fail(flow.Class{api.UserError, "NotAcceptable"}, "ServingApp",
		"Media type {media_type} in Accept header is not acceptable. Supported media type(s) - {supported_media_types}",
		"media_type", strings.Join(mediaTypes(accept), ","), "supported_media_types", supported)
	return e.WithStatus(http.StatusNotAcceptable)
}

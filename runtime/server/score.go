package server

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/run"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// corsMethods are what flask-cors lets pages of other origins use.
const corsMethods = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"

// crossOrigin lets pages of any origin use an endpoint, as prompt flow's serving app does.
func crossOrigin(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		if r.Method == http.MethodOptions {
			if r.Header.Get("Access-Control-Request-Method") != "" {
				w.Header().Set("Access-Control-Allow-Methods", corsMethods)
			}
			if headers := r.Header.Get("Access-Control-Request-Headers"); headers != "" {
				w.Header().Set("Access-Control-Allow-Headers", headers)
			}
			w.WriteHeader(http.StatusOK)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// scoring answers in prompt flow's serving shape, whose errors have a code and a message only.
func (s *server) scoring(e endpoint) http.Handler {
	inner := func(w http.ResponseWriter, r *http.Request) error {
		err := s.guard(s.onlyTrusted(e), w, r)
		if err == nil {
			return nil
		}
		failure := api.AsError(err)
		simple := &api.Error{Code: failure.Code, Message: failure.Message, Status: failure.HTTPStatus(), RetryAfterSeconds: failure.RetryAfterSeconds}
		return simple
	}
	return crossOrigin(s.answer(inner))
}

// theServed returns the flow of PROMPTFLOW_FLOW.
func (s *server) theServed() (*lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.served == nil {
		return nil, fault([]string{"NotFound"}, http.StatusNotFound, "This runtime serves no flow. Please set PROMPTFLOW_FLOW, or submit to /v1/runs.")
	}
	return s.served, nil
}

// score runs the served flow on one set of inputs, without aggregation nodes.
func (s *server) score(w http.ResponseWriter, r *http.Request) error {
	began := time.Now()
	body, err := readBody(w, r, s.config.MaxBody, requestTimeout)
	if err != nil {
		return err
	}
	release, err := s.admit()
	if err != nil {
		return err
	}
	defer release()
	served, err := s.theServed()
	if err != nil {
		return err
	}
	if err := s.scoreFlow(w, r, served, body, began); err != nil {
		return s.unanswered(served, err, began)
	}
	return nil
}

func (s *server) scoreFlow(w http.ResponseWriter, r *http.Request, served *lease, body []byte, began time.Time) error {
	inputs, err := scoreInputs(served.Flow(), body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	accept := acceptOf(r)
	opened := served.OpenLine(ctx, requestID(r), inputs, acceptsEvents(accept))
	defer opened.Close()
	streams := slices.DeleteFunc(opened.Streams(), func(name string) bool { return s.hides(served.Flow(), name) })
	switch {
	case len(streams) > 1:
		return api.NewError([]string{api.UserError, "MultipleStreamOutputFieldsNotSupported"}, "ServingApp", "Multiple stream output fields not supported.")
	case len(streams) == 1:
		s.scoreEvents(w, cancel, served, opened, streams[0], began)
		return nil
	}
	line := opened.Finish(nothing)
	s.stats.nodes(flowLabel(served), line.Nodes)
	switch {
	case !line.Completed():
		return line.Info.Error
	case !acceptsJSON(accept):
		return notAcceptable(accept, "application/json")
	}
	s.stats.answered(flowLabel(served), http.StatusOK, nil, false, began)
	writeJSON(w, http.StatusOK, value.Encode(served.Format().Base64(s.answerOf(served.Flow(), line))))
	return nil
}

// answerOf is what callers see of a line: its visible outputs, or the one value that a flex flow returned.
func (s *server) answerOf(f *flow.Flow, line *run.Line) any {
	out := s.visible(f, line.Output)
	if v, ok := out.Get("output"); ok && line.Primitive {
		return v
	}
	return out
}

// nothing takes the pieces of outputs that nobody sees.
func nothing(string, any) error { return nil }

// scoreEvents answers as prompt flow's serving app does: the outputs that are whole in a first event, then an event for each piece. An
// error in the middle breaks the connection off, there being no event for it.
func (s *server) scoreEvents(w http.ResponseWriter, cancel context.CancelCauseFunc, served *lease, opened *run.Opened, name string, began time.Time) {
	events := newEventStream(w, cancel)
	frame := func(d *value.Dict) error {
		return events.write([]byte("data: " + value.Dumps(served.Format().Base64(d)) + "\n\n"))
	}
	if whole := s.visible(served.Flow(), opened.Outputs()); whole.Len() > 0 {
		_ = frame(whole) // its error comes again
	}
	line := opened.Finish(func(output string, item any) error {
		if output != name {
			return nil
		}
		piece := value.NewDictSize(1)
		piece.Set(output, item)
		return frame(piece)
	})
	s.stats.nodes(flowLabel(served), line.Nodes)
	if !line.Completed() {
		s.stats.answered(flowLabel(served), http.StatusOK, line.Info.Error, true, began)
		s.log.Info("answer broke off", "run", line.Info.RunID, "error", line.Info.Error.Message)
		panic(http.ErrAbortHandler)
	}
	s.streamed(flowLabel(served), began, events.firstAt())
	_ = events.write(nil) // so that an answer without events begins too
	events.end()
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

// hides reports whether an output is left out of answers: it is for evaluation only, or PROMPTFLOW_RESPONSE_INCLUDED_FIELDS does not
// name it.
func (s *server) hides(f *flow.Flow, name string) bool {
	for _, o := range f.Outputs {
		if o.Name != name {
			continue
		}
		if s.config.Included != nil {
			return !slices.Contains(s.config.Included, name)
		}
		return o.EvaluationOnly
	}
	return false
}

// visible leaves out the outputs that are hidden.
func (s *server) visible(f *flow.Flow, output *value.Dict) *value.Dict {
	out := value.NewDictSize(output.Len())
	for name, v := range output.All() {
		if !s.hides(f, name) {
			out.Set(name, v)
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

package server

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// putFlow takes a bundle: 201 when it is new, 200 when it was here already.
func (s *server) putFlow(w http.ResponseWriter, r *http.Request) error {
	digest := r.PathValue("digest")
	if !isDigest(digest) {
		return fault([]string{"InvalidDigest"}, http.StatusBadRequest, "%q is not the digest of a bundle. Please send 'sha256:' and 64 hexadecimal digits.", digest)
	}
	if s.flows.has(digest) {
		_, _ = io.CopyN(io.Discard, r.Body, 256<<10) // so that a short upload need not break off
		return writeObject(w, http.StatusOK, map[string]any{"digest": digest})
	}
	if s.draining.Load() {
		_, err := s.admit()
		return err
	}
	deadline(w, uploadTimeout)
	if err := s.flows.put(r.Context(), digest, http.MaxBytesReader(w, r.Body, s.config.MaxBundle)); err != nil {
		return uploadError(err, s.config.MaxBundle)
	}
	return writeObject(w, http.StatusCreated, map[string]any{"digest": digest})
}

// postRun runs a submission and answers when it has ended, or with its events as they happen.
func (s *server) postRun(w http.ResponseWriter, r *http.Request) error {
	began := time.Now()
	accept := acceptOf(r)
	follows := acceptsEvents(accept)
	if !follows && !acceptsJSON(accept) {
		return notAcceptable(accept, "text/event-stream, application/json")
	}
	body, err := readBody(w, r, s.config.MaxBody, requestTimeout)
	if err != nil {
		return err
	}
	request, err := decodeRun(body)
	if err != nil {
		return err
	}
	release, err := s.admit()
	if err != nil {
		return err
	}
	defer release()
	flow, err := s.flowOf(r, request)
	if err != nil {
		return withRun(err, request.RunID)
	}
	defer flow.release()
	if request.RunID == "" {
		request.RunID = uuid.NewString()
	}
	if follows {
		return withRun(s.followRun(w, r, flow, request, began), request.RunID)
	}
	result, err := flow.Run(r.Context(), request)
	if err != nil {
		return withRun(s.unanswered(flow, err, began), request.RunID)
	}
	s.stats.ran(flowLabel(flow), result)
	s.stats.answered(flowLabel(flow), http.StatusOK, nil, false, began)
	writeJSON(w, http.StatusOK, encodeResult(s.signed(result, flow)))
	return nil
}

// unanswered counts a request of a flow that is answered with an error, and returns the error.
func (s *server) unanswered(flow *lease, err error, began time.Time) error {
	e := api.AsError(err)
	s.stats.answered(flowLabel(flow), e.HTTPStatus(), e, false, began)
	return err
}

// signed says in a result who gave it.
func (s *server) signed(result *api.RunResult, flow *lease) *api.RunResult {
	result.Runtime, result.Instance = s.config.Runtime, s.config.Instance
	result.Flow = flow.name
	return result
}

// withRun says in an error which run it is about; nil stays nil.
func withRun(err error, id string) error {
	if err == nil {
		return nil
	}
	e := *api.AsError(err)
	e.RunID = id
	return &e
}

// flowOf returns the executor of the flow that a submission names; none means the flow that is served.
func (s *server) flowOf(r *http.Request, request *api.RunRequest) (*lease, error) {
	if request.Flow != "" {
		if !isDigest(request.Flow) {
			return nil, fault([]string{"InvalidDigest"}, http.StatusBadRequest, "%q is not the digest of a bundle. Please send 'sha256:' and 64 hexadecimal digits.", request.Flow)
		}
		return s.flows.get(r.Context(), request)
	}
	s.mu.Lock()
	served := s.served
	s.mu.Unlock()
	if served == nil {
		return nil, fault([]string{"FlowMissing"}, http.StatusBadRequest, "The submission names no flow. Please send its digest in 'flow'.")
	}
	for name, given := range map[string]bool{
		"environment_variables": len(request.EnvironmentVariables) > 0, "flow_file": request.FlowFile != "", "variant": request.Variant != "", "init": len(request.Init) > 0,
		"node": request.Node != "",
	} {
		if given {
			return nil, fault([]string{"NotSupported"}, http.StatusBadRequest, "The flow that is served stays as it was loaded. Please send no %s, or the digest of a flow.", name)
		}
	}
	return &lease{served.Executor, served.name, func() {}}, nil
}

// decodeRun reads a submission. It is decoded by our own reader, for NaN and Infinity may stand in it, and fields that mean
// nothing are refused rather than ignored.
func decodeRun(body []byte) (*api.RunRequest, error) {
	v, err := value.Decode(body)
	if err != nil {
		return nil, badRun("is not valid JSON: %v", err)
	}
	fields, ok := v.(*value.Dict)
	if !ok {
		return nil, badRun("is not an object but %s", value.TypeName(v))
	}
	request := &api.RunRequest{}
	for name, v := range fields.All() {
		if err := decodeField(request, name, v); err != nil {
			return nil, err
		}
	}
	return request, nil
}

func badRun(format string, args ...any) error {
	return fault([]string{"InvalidRequest"}, http.StatusBadRequest, "The submission "+format+". Please correct it and send it again.", args...)
}

func decodeField(request *api.RunRequest, name string, v any) error {
	if v == nil {
		return nil
	}
	text, isText := v.(string)
	list, isList := v.([]any)
	dict, isDict := v.(*value.Dict)
	switch {
	case name == "flow" && isText:
		request.Flow = text
	case name == "run_id" && isText:
		if strings.ContainsAny(text, "/\\\x00\n") || len(text) > 256 {
			return badRun("has a 'run_id' with characters that are not allowed or more than 256 bytes")
		}
		request.RunID = text
	case name == "inputs":
		request.Inputs = value.Encode(v)
	case name == "dependency_nodes_outputs" && isDict:
		request.NodeOutputs = value.Encode(v)
	case name == "node" && isText:
		request.Node = text
	case name == "lines" && isList:
		request.Lines = make([]json.RawMessage, len(list))
		for i, line := range list {
			request.Lines[i] = value.Encode(line)
		}
	case name == "environment_variables" && isDict:
		return decodeEnvironment(request, dict)
	case name == "flow_file" && isText:
		request.FlowFile = text
	case name == "variant" && isText:
		request.Variant = text
	case name == "init" && isDict:
		request.Init = value.Encode(v)
	case name == "line_timeout_sec":
		return decodeSeconds(&request.LineTimeout, name, v)
	case name == "node_timeout_sec":
		return decodeSeconds(&request.NodeTimeout, name, v)
	case slices.Contains(runFields, name):
		return badRun("has a '%s' of type %s", name, value.TypeName(v))
	default:
		return badRun("has the field '%s', which this runtime does not know", name)
	}
	return nil
}

// runFields are those of a submission that must be of one type.
var runFields = []string{"flow", "run_id", "node", "dependency_nodes_outputs", "lines", "environment_variables", "flow_file", "variant", "init"}

func decodeSeconds(to *float64, name string, v any) error {
	f, err := value.Float(v)
	if _, isText := v.(string); err != nil || isText || !(f >= 0 && f <= maxTimeout.Seconds()) {
		return badRun("has a '%s' of %s, which is no number of seconds from 0 to %.0f", name, value.Repr(v), maxTimeout.Seconds())
	}
	*to = f
	return nil
}

func decodeEnvironment(request *api.RunRequest, dict *value.Dict) error {
	request.EnvironmentVariables = make(map[string]string, dict.Len())
	for name, v := range dict.All() {
		text, ok := v.(string)
		if !ok || name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(text, "\x00") {
			return badRun("has the environment variable '%s' that is no name with a string", name)
		}
		request.EnvironmentVariables[name] = text
	}
	return nil
}

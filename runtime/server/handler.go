package server

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

// target names this server in errors.
const target = "Runtime"

// fault is an error of a request; class is below UserError for a 4xx status and below SystemError otherwise.
func fault(class []string, status int, format string, args ...any) *api.Error {
	root := api.UserError
	if status >= http.StatusInternalServerError {
		root = api.SystemError
	}
	return api.NewError(append([]string{root}, class...), target, format, args...).WithStatus(status)
}

// endpoint answers a request, or returns an error that is answered in the one error shape.
type endpoint func(w http.ResponseWriter, r *http.Request) error

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	open := func(pattern string, e endpoint) { mux.Handle(pattern, s.answer(e)) }
	trusted := func(pattern string, e endpoint) { mux.Handle(pattern, s.answer(s.onlyTrusted(e))) }
	open("GET /health", s.health)
	open("GET /ready", s.readiness)
	open("GET /version", s.version)
	mux.Handle("GET /metrics", s.stats.handler)
	trusted("PUT /v1/flows/{digest}", s.putFlow)
	trusted("POST /v1/runs", s.postRun)
	trusted("POST /v1/validate", s.postValidate)
	s.serving(mux)
	s.executing(mux)
	mux.Handle("/", crossOrigin(s.answer(s.notFound)))
	return mux
}

// notFound answers for what there is not; a runtime that serves a flow speaks as prompt flow's serving app does, but for the paths of
// our own.
func (s *server) notFound(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.theServed(); err == nil && !strings.HasPrefix(r.URL.Path, "/v1/") {
		return s.unsupported(w, r)
	}
	return fault([]string{"NotFound"}, http.StatusNotFound, "%s %s is not supported by this runtime. Please check the path and the method.", r.Method, r.URL.Path)
}

// answer runs an endpoint; its errors and panics become answers.
func (s *server) answer(e endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		err := s.guard(e, w, r)
		if err == nil {
			return
		}
		failure := api.AsError(err)
		status := failure.HTTPStatus()
		s.log.Info("request failed", "method", r.Method, "path", r.URL.Path, "status", status, "error", failure.Message, "took", time.Since(began))
		if failure.RetryAfterSeconds > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(failure.RetryAfterSeconds))
		}
		body, marshalError := json.Marshal(api.ErrorBody{Error: failure})
		if marshalError != nil { // details that JSON cannot carry
			plain := *failure
			plain.DebugInfo, plain.AdditionalInfo = nil, nil
			body, _ = json.Marshal(api.ErrorBody{Error: &plain})
		}
		writeJSON(w, status, body)
	})
}

// guard turns a panic into a SystemError.
func (s *server) guard(e endpoint, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // the very value is what net/http panics with
				panic(p)
			}
			s.log.Error("request panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			err = fault([]string{"UnexpectedError"}, http.StatusInternalServerError, "The runtime failed while answering. Please report this with its logs.")
		}
	}()
	return e(w, r)
}

func (s *server) onlyTrusted(e endpoint) endpoint {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := s.trust.check(r); err != nil {
			return err
		}
		return e(w, r)
	}
}

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone
}

// readBody reads a request's body within a bound of bytes and of time.
func readBody(w http.ResponseWriter, r *http.Request, limit int64, within time.Duration) ([]byte, error) {
	deadline(w, within)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return nil, bodyError(err, limit)
	}
	deadline(w, 0)
	return body, nil
}

// deadline bounds the reading of a body; 0 lifts the bound. Test recorders know no deadlines.
func deadline(w http.ResponseWriter, within time.Duration) {
	var at time.Time
	if within > 0 {
		at = time.Now().Add(within)
	}
	_ = http.NewResponseController(w).SetReadDeadline(at)
}

func bodyError(err error, limit int64) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return fault([]string{"RequestTooLarge"}, http.StatusRequestEntityTooLarge, "The request's body has more than %d bytes. Please send less.", limit)
	}
	return fault([]string{"BadRequest"}, http.StatusBadRequest, "The request's body could not be read: %v. Please send it again.", err)
}

// admit takes a slot for a run.
func (s *server) admit() (release func(), err error) {
	if s.draining.Load() {
		e := fault([]string{"Stopping"}, http.StatusServiceUnavailable, "This instance is stopping. Please send the submission to another one.")
		e.RetryAfterSeconds = 1
		return nil, e
	}
	if !s.ready.Load() {
		s.mu.Lock()
		defer s.mu.Unlock()
		e := fault([]string{"NotReady"}, http.StatusServiceUnavailable, "This instance is not ready: %s. Please try again.", s.why)
		e.RetryAfterSeconds = 1
		return nil, e
	}
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots }, nil
	default:
		e := fault([]string{"TooManyRequests"}, http.StatusTooManyRequests, "This instance runs %d submissions already, as many as it may. Please try again later.", cap(s.slots))
		e.RetryAfterSeconds = 1
		return nil, e
	}
}

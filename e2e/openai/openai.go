// Package openai is a small HTTP server that speaks the chat, completion and embeddings calls of OpenAI and of Azure OpenAI, for tests and
// for the demo. Its answers are computed from the request alone, so that the same request always gets the same answer.
//
// It is no model: it says back what it was told, calls the first tool it is offered, and fails on demand. It imports
// nothing of ours.
package openai

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// maxBody bounds a request, in bytes.
const maxBody = 16 << 20

// Key is the API key that a server asks for when it was made with [Start].
const Key = "test-key-of-no-value"

// Request is one call that a server received.
type Request struct {
	Path   string // with the query
	Header http.Header
	Body   json.RawMessage
}

// Failure is an answer that a server gives instead of a model's. The zero value stands for the model's own.
type Failure struct {
	Status  int
	Header  map[string]string
	Message string
	Type    string
	// Hangup closes the connection without an answer.
	Hangup bool
}

// Server is an http.Handler. The zero value takes any key.
type Server struct {
	// APIKey is the only key that is let in; "" lets everybody in.
	APIKey string
	// BeforePiece, when not nil, is called before each piece of an answer that streams; the answer breaks off when it returns false.
	BeforePiece func(number int) bool

	mu       sync.Mutex
	requests []Request
	failures []Failure
}

// Start serves on a free port of the loopback interface until the test ends, and returns the server and its URL.
func Start(t testing.TB) (*Server, string) {
	t.Helper()
	s := &Server{APIKey: Key}
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return s, h.URL
}

// Fail makes the next calls fail, one failure each.
func (s *Server) Fail(failures ...Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, failures...)
}

// Requests returns the calls received so far, failed ones included.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		refuse(w, Failure{Status: http.StatusRequestEntityTooLarge, Message: err.Error()})
		return
	}
	failure := s.record(r, body)
	switch {
	case failure != nil && failure.Hangup:
		panic(http.ErrAbortHandler)
	case failure != nil:
		refuse(w, *failure)
	case !s.authorized(r):
		refuse(w, Failure{Status: http.StatusUnauthorized, Message: "Incorrect API key provided.", Type: "invalid_request_error"})
	default:
		s.answer(w, r, body)
	}
}

// record keeps the call and takes the failure that is due, if any.
func (s *Server) record(r *http.Request, body []byte) *Failure {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, Request{Path: r.URL.RequestURI(), Header: r.Header.Clone(), Body: body})
	if len(s.failures) == 0 {
		return nil
	}
	f := s.failures[0]
	s.failures = s.failures[1:]
	if f.Status == 0 && !f.Hangup {
		return nil
	}
	return &f
}

func (s *Server) authorized(r *http.Request) bool {
	return s.APIKey == "" || r.Header.Get("Authorization") == "Bearer "+s.APIKey || r.Header.Get("Api-Key") == s.APIKey
}

func refuse(w http.ResponseWriter, f Failure) {
	for k, v := range f.Header {
		w.Header().Set(k, v)
	}
	write(w, f.Status, map[string]any{"error": map[string]any{"message": f.Message, "type": f.Type, "param": nil, "code": nil}})
}

func write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a caller that is gone needs no answer
}

// answer routes the paths of both kinds: /v1/chat/completions, and /openai/deployments/{name}/chat/completions.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, body []byte) {
	path := r.URL.Path
	azure := strings.HasPrefix(path, "/openai/deployments/")
	switch {
	case r.Method != http.MethodPost:
		refuse(w, Failure{Status: http.StatusMethodNotAllowed, Message: "Only POST is allowed."})
	case azure && r.URL.Query().Get("api-version") == "":
		refuse(w, Failure{Status: http.StatusNotFound, Message: "Resource not found", Type: "api-version"})
	case byModel(w, body):
	case strings.HasSuffix(path, "/embeddings") && (azure || path == "/v1/embeddings"):
		embed(w, body)
	case strings.HasSuffix(path, "/chat/completions") && (azure || path == "/v1/chat/completions"):
		s.chat(w, body)
	case strings.HasSuffix(path, "/completions") && (azure || path == "/v1/completions"):
		s.complete(w, body)
	default:
		refuse(w, Failure{Status: http.StatusNotFound, Message: fmt.Sprintf("Invalid URL (POST %s)", path), Type: "invalid_request_error"})
	}
}

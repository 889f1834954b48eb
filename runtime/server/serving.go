package server

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// serving adds the routes of prompt flow's serving app.
func (s *server) serving(mux *http.ServeMux) {
	mux.Handle("POST /score", s.scoring(s.score))
	mux.Handle("OPTIONS /score", s.scoring(s.score))
	mux.Handle("GET /swagger.json", s.scoring(s.swagger))
	mux.Handle("POST /feedback", s.scoring(s.feedback))
	mux.Handle("GET /{$}", s.scoring(s.home))
	mux.Handle("POST /{$}", s.scoring(s.home))
}

// unsupported is the serving app's answer to paths and methods that it does not know.
func (s *server) unsupported(w http.ResponseWriter, r *http.Request) error {
	path := strings.TrimPrefix(r.URL.Path, "/")
	writeText(w, http.StatusNotFound, "The requested api "+value.Repr(path)+" with "+r.Method+
		" is not supported by current app, if you entered the URL manually please check your spelling and try again.")
	return nil
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff") // and the path in it is none of ours
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // the client may be gone
}

// home is what the serving app shows that was built without its page.
func (s *server) home(w http.ResponseWriter, _ *http.Request) error {
	if _, err := s.theServed(); err != nil {
		return err
	}
	writeText(w, http.StatusOK, "<h1>Welcome to promptflow app.</h1>")
	return nil
}

// swagger describes the served flow.
func (s *server) swagger(w http.ResponseWriter, _ *http.Request) error {
	served, err := s.theServed()
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, value.Encode(s.describe(served)))
	return nil
}

// maxFeedback bounds what one feedback may say, in bytes.
const maxFeedback = 1 << 20

// feedback takes what people think of an answer and writes it to the log: as it came, or with ?flatten=true every member of its object
// on its own. The headers traceparent and baggage say which answer it is about.
func (s *server) feedback(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.theServed(); err != nil {
		return err
	}
	body, err := readBody(w, r, maxFeedback, requestTimeout)
	if err != nil {
		return err
	}
	fields := []any{"request_id", requestID(r), "traceparent", r.Header.Get("Traceparent"), "baggage", r.Header.Get("Baggage")}
	flat, err := value.DecodeDict(body)
	if strings.EqualFold(r.URL.Query().Get("flatten"), "true") && err == nil {
		for name, v := range flat.All() {
			fields = append(fields, "feedback."+name, attribute(v))
		}
	} else {
		fields = append(fields, "feedback", string(body))
	}
	s.log.Info("feedback", fields...)
	answer, err := json.Marshal(map[string]string{"status": "Feedback received."})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}

// attribute is a value as a trace's attribute holds it: a scalar as it is, anything else as JSON.
func attribute(v any) any {
	switch v := v.(type) {
	case string, bool, int64, float64:
		return v
	default:
		return value.Dumps(v)
	}
}

package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/api/bundle"
)

// postValidate validates a flow: a bundle that is here, with files changed or without, files that make up a whole flow, or a bundle that
// the request's body is.
func (s *server) postValidate(w http.ResponseWriter, r *http.Request) error {
	if accept := r.Header.Get("Accept"); !acceptsJSON(accept) {
		return notAcceptable(accept, "application/json")
	}
	request, err := s.readValidate(w, r)
	if err != nil {
		return err
	}
	release, err := s.admit()
	if err != nil {
		return err
	}
	defer release()
	session, err := s.sessions.enter(s, request)
	if err != nil {
		return err
	}
	defer s.sessions.leave(session)
	result, err := session.validate(r.Context(), request)
	switch {
	case r.Context().Err() != nil:
		return fault([]string{"RequestCanceled"}, http.StatusServiceUnavailable, "The request was cancelled while its flow was validated.")
	case err != nil:
		return err
	}
	result.Flow, result.Runtime, result.Instance = request.Flow, s.config.Runtime, s.config.Instance
	body, err := json.Marshal(result)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, body)
	return nil
}

// readValidate reads the request: JSON, or a bundle, which is stored as any that is handed in.
func (s *server) readValidate(w http.ResponseWriter, r *http.Request) (*api.ValidateRequest, error) {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == bundle.MediaType {
		digest, err := s.takeBundle(w, r)
		return &api.ValidateRequest{Flow: digest, Tools: r.URL.Query().Get("tools") == "true"}, err
	}
	body, err := readBody(w, r, s.config.MaxBody, requestTimeout)
	if err != nil {
		return nil, err
	}
	request := &api.ValidateRequest{}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(request); err != nil {
		return nil, badValidate("is not a valid request: %v", err)
	}
	return request, checkValidate(request)
}

func badValidate(format string, args ...any) error {
	return fault([]string{"InvalidRequest"}, http.StatusBadRequest, "The request to validate "+format+". Please correct it and send it again.", args...)
}

// checkValidate refuses what is no flow and paths that are none.
func checkValidate(request *api.ValidateRequest) error {
	switch {
	case request.Flow == "" && len(request.Files) == 0:
		return badValidate("names no flow and has no files")
	case request.Flow != "" && !isDigest(request.Flow):
		return fault([]string{"InvalidDigest"}, http.StatusBadRequest, "%q is not the digest of a bundle. Please send 'sha256:' and 64 hexadecimal digits.", request.Flow)
	case len(request.Files) > bundle.DefaultLimits.Files:
		return badValidate("has more than %d files", bundle.DefaultLimits.Files)
	}
	seen := make(map[string]bool, len(request.Files))
	for _, f := range request.Files {
		switch {
		case !filepath.IsLocal(f.Path) || filepath.Clean(f.Path) != f.Path || strings.ContainsAny(f.Path, "\\\x00") || f.Path == ".":
			return badValidate("has the path %q, which leaves the flow's folder or is not in its plain form", f.Path)
		case len(f.Path) > bundle.DefaultLimits.Path || strings.Count(f.Path, "/") > bundle.DefaultLimits.Depth:
			return badValidate("has the path %.80q…, which is too long", f.Path)
		case seen[f.Path]:
			return badValidate("has the path %q twice", f.Path)
		}
		seen[f.Path] = true
	}
	for name, text := range request.EnvironmentVariables {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(text, "\x00") {
			return badValidate("has the environment variable %q that is no name with a text", name)
		}
	}
	return nil
}

// takeBundle stores the bundle that a body is and returns its name.
func (s *server) takeBundle(w http.ResponseWriter, r *http.Request) (string, error) {
	deadline(w, uploadTimeout)
	file, err := os.CreateTemp(s.flows.dir, ".upload-")
	if err != nil {
		return "", storeError(err)
	}
	defer func() {
		_ = file.Close()
		_ = os.Remove(file.Name())
	}()
	if _, err := io.Copy(file, http.MaxBytesReader(w, r.Body, s.config.MaxBundle)); err != nil {
		return "", uploadError(err, s.config.MaxBundle)
	}
	deadline(w, 0)
	name, err := s.nameOf(r, file)
	if err != nil || s.flows.has(name) {
		return name, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return "", storeError(err)
	}
	if err := s.flows.put(r.Context(), name, file); err != nil {
		return "", uploadError(err, s.config.MaxBundle)
	}
	return name, nil
}

func (s *server) nameOf(r *http.Request, file *os.File) (string, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return "", storeError(err)
	}
	name, err := bundle.Name(r.Context(), file, bundle.DefaultLimits)
	if err != nil && !errors.Is(err, bundle.ErrInvalid) {
		return "", storeError(err)
	}
	if err != nil {
		return "", uploadError(err, s.config.MaxBundle)
	}
	return name, nil
}

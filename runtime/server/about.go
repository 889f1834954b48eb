package server

import (
	"encoding/json"
	"net/http"
)

func (s *server) health(w http.ResponseWriter, _ *http.Request) error {
	return writeObject(w, http.StatusOK, map[string]any{"status": "Healthy", "version": s.config.Version})
}

func (s *server) readiness(w http.ResponseWriter, _ *http.Request) error {
	switch {
	case s.draining.Load():
		return writeObject(w, http.StatusServiceUnavailable, map[string]any{"status": "Stopping"})
	case !s.ready.Load():
		s.mu.Lock()
		defer s.mu.Unlock()
		return writeObject(w, http.StatusServiceUnavailable, map[string]any{"status": "NotReady", "reason": s.why})
	default:
		return writeObject(w, http.StatusOK, map[string]any{"status": "Ready"})
	}
}

// version is prompt flow's answer and what a gateway wants to know beside.
func (s *server) version(w http.ResponseWriter, _ *http.Request) error {
	version := s.config.Version
	var build struct {
		Number string `json:"build_number"`
	}
	if json.Unmarshal([]byte(s.config.BuildInfo), &build) == nil && build.Number != "" {
		version = build.Number
	}
	about := map[string]any{
		"status": "Healthy", "build_info": s.config.BuildInfo, "version": version, "runtime": s.config.Runtime, "type": s.config.Type,
		"owner": s.config.Owner, "concurrency": cap(s.slots), "running": len(s.slots), "api": "v1",
	}
	for name, value := range map[string]string{"environment": s.config.Environment, "environment_digest": s.config.Digest, "instance": s.config.Instance} {
		if value != "" {
			about[name] = value
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.workers != nil {
		about["python"], about["promptflow"] = s.workers.Versions()
	}
	if s.served != nil {
		about["flow"] = s.served.name
	}
	return writeObject(w, http.StatusOK, about)
}

func writeObject(w http.ResponseWriter, status int, object map[string]any) error {
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	writeJSON(w, status, body)
	return nil
}

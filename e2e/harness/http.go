package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// getJSON decodes the answer of an HTTP server.
func getJSON(address string, into any) error {
	return request(http.MethodGet, address, func(body io.Reader) error { return json.NewDecoder(body).Decode(into) })
}

func deleteURL(address string) error {
	return request(http.MethodDelete, address, func(io.Reader) error { return nil })
}

func request(method, address string, read func(body io.Reader) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: status %d", strings.ToLower(method), req.URL.Path, resp.StatusCode)
	}
	return read(resp.Body)
}

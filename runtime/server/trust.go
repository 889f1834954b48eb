package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

// maxTokenFile bounds the token file, in bytes.
const maxTokenFile = 64 << 10

// trust decides whose requests are taken: of those that carry a token of the token file, or of everybody.
type trust struct {
	path string // empty: everybody
	log  hclog.Logger

	mu      sync.Mutex
	changed time.Time
	tokens  [][sha256.Size]byte
}

func newTrust(spec string, log hclog.Logger) (*trust, error) {
	t := &trust{path: strings.TrimPrefix(spec, "file:"), log: log}
	if spec == "" {
		log.Warn("everybody who can reach this runtime may run code in it: set PROMPTFLOW_TRUST=file:PATH to ask for a token")
		return t, nil
	}
	_, err := t.read()
	return t, err
}

// read returns the tokens' hashes, reading the file again when it has changed.
func (t *trust) read() ([][sha256.Size]byte, error) {
	info, err := os.Stat(t.path)
	if err != nil {
		return nil, fmt.Errorf("read token file: %w", err)
	}
	// Nomad renders secrets as 0644 into a folder that only this task has: who may read is the folder's business, who may write
	// decides who is trusted.
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("read token file %s: its mode is %04o, and whoever may write it decides who is trusted: chmod go-w", t.path, info.Mode().Perm())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if info.ModTime().Equal(t.changed) {
		return t.tokens, nil
	}
	if info.Size() > maxTokenFile {
		return nil, fmt.Errorf("read token file %s: it has more than %d bytes", t.path, maxTokenFile)
	}
	text, err := os.ReadFile(t.path)
	if err != nil {
		return nil, fmt.Errorf("read token file: %w", err)
	}
	t.tokens = nil
	for token := range strings.FieldsSeq(string(text)) {
		t.tokens = append(t.tokens, sha256.Sum256([]byte(token)))
	}
	if len(t.tokens) == 0 {
		return nil, fmt.Errorf("read token file %s: %w: write a token into it", t.path, errEmpty)
	}
	t.changed = info.ModTime()
	return t.tokens, nil
}

var errEmpty = errors.New("it is empty")

// check returns nil for a request that may be served.
func (t *trust) check(r *http.Request) *api.Error {
	if t.path == "" {
		return nil
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return fault([]string{"Unauthorized"}, http.StatusUnauthorized, "This runtime asks for a token. Please send it in the header 'Authorization: Bearer TOKEN'.")
	}
	tokens, err := t.read()
	if err != nil {
		t.log.Error("check token", "error", err)
		return fault([]string{"Unauthorized"}, http.StatusServiceUnavailable, "The runtime cannot read its tokens. Please tell its operator.")
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	match := 0
	for i := range tokens {
		match |= subtle.ConstantTimeCompare(sum[:], tokens[i][:])
	}
	if match == 0 {
		return fault([]string{"Forbidden"}, http.StatusForbidden, "The token is not one of this runtime's. Please check it.")
	}
	return nil
}

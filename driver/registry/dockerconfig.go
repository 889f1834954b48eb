package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxDockerConfig bounds the config.json that is read.
const maxDockerConfig = 1 << 20

// dockerConfig is what matters of a docker config.json.
type dockerConfig struct {
	Auths map[string]dockerAuth `json:"auths"`
	// CredHelpers are helpers for single registries, CredsStore is one for all.
	CredHelpers map[string]string `json:"credHelpers"`
	CredsStore  string            `json:"credsStore"`
}

type dockerAuth struct {
	// Auth is username:password in base64.
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
}

// readDockerConfig reads the file. What is wrong with its text is said without any of the text.
func readDockerConfig(path string) (dockerConfig, error) {
	file, err := os.Open(path)
	if err != nil {
		return dockerConfig{}, err
	}
	defer func() { _ = file.Close() }()
	raw, err := io.ReadAll(io.LimitReader(file, maxDockerConfig+1))
	if err != nil {
		return dockerConfig{}, err
	}
	if len(raw) > maxDockerConfig {
		return dockerConfig{}, fmt.Errorf("it is larger than %d bytes", maxDockerConfig)
	}
	var config dockerConfig
	if err := json.Unmarshal(raw, &config); err != nil {
		return dockerConfig{}, fmt.Errorf("it is not a docker config.json%s", whereInJSON(err))
	}
	return config, nil
}

func whereInJSON(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf(": bad JSON at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Sprintf(": %s must be a %s", kind.Field, kind.Type)
	}
	return ""
}

// credentials looks where Nomad's docker driver looks, in its order: auths, credHelpers, credsStore.
func (c dockerConfig) credentials(ctx context.Context, host string) (Credentials, error) {
	found, err := c.stored(host).credentials()
	if err != nil {
		return Credentials{}, fmt.Errorf("auths %q: %w", serverAddress(host), err)
	}
	if found.Found() {
		return found, nil
	}
	for _, helper := range []string{c.helperFor(host), c.CredsStore} {
		if helper == "" {
			continue
		}
		if found, err = askHelper(ctx, helper, serverAddress(host)); err != nil || found.Found() {
			return found, err
		}
	}
	return Credentials{}, nil
}

// stored finds the entry of a host, whichever way its key is written.
func (c dockerConfig) stored(host string) dockerAuth {
	if auth, ok := c.Auths[serverAddress(host)]; ok {
		return auth
	}
	for key, auth := range c.Auths {
		if canonicalHost(key) == host {
			return auth
		}
	}
	return dockerAuth{}
}

func (c dockerConfig) helperFor(host string) string {
	if helper, ok := c.CredHelpers[serverAddress(host)]; ok {
		return helper
	}
	return c.CredHelpers[host]
}

func (a dockerAuth) credentials() (Credentials, error) {
	switch {
	case a.IdentityToken != "":
		return Credentials{Secret: a.IdentityToken}, nil
	case a.Username != "" && a.Password != "":
		return Credentials{Username: a.Username, Secret: a.Password}, nil
	case a.Auth == "":
		return Credentials{}, nil
	}
	decoded, err := base64.StdEncoding.DecodeString(a.Auth)
	if err != nil {
		return Credentials{}, errors.New("auth is not base64")
	}
	username, password, ok := strings.Cut(string(decoded), ":")
	if !ok || username == "" {
		return Credentials{}, errors.New("auth is not username:password in base64")
	}
	// docker itself writes a NUL after some passwords.
	return Credentials{Username: username, Secret: strings.Trim(password, "\x00")}, nil
}

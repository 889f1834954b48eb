package registry

import (
	"context"
	"fmt"
)

// Credentials are who we say we are to a registry. The zero value is nobody.
type Credentials struct {
	Username string
	// Secret is the password. Without a Username it is an identity token.
	Secret string
	// Source says where they are from, in the words of the configuration.
	Source string
}

// Found says whether there are any.
func (c Credentials) Found() bool { return c.Secret != "" }

// String has no secret.
func (c Credentials) String() string {
	switch {
	case !c.Found():
		return "no credentials"
	case c.Username == "":
		return "the identity token from " + c.Source
	}
	return fmt.Sprintf("the credentials of %q from %s", c.Username, c.Source)
}

// GoString has no secret either.
func (c Credentials) GoString() string { return c.String() }

// Source finds the credentials for a host. Without an error and without credentials there are none.
type Source func(ctx context.Context, host string) (Credentials, error)

// TaskAuth is a task's auth block.
type TaskAuth struct {
	Username, Password string
	// ServerAddress is the registry that they are for; empty means the image's own.
	ServerAddress string
	// SoftFail goes on with the next source where one fails.
	SoftFail bool
}

// Credentials returns the source of credentials for pulling one image from the registry on host: the task's own block, the
// plugin's registry block, its config.json, its helper; the first that has any counts. The task's own are for that registry
// only, never for a mirror of it. skipped is told of each source that fails and does not matter.
func (r *Registries) Credentials(task TaskAuth, host string, skipped func(error)) (Source, error) {
	own, err := task.source(canonicalHost(host))
	if err != nil {
		return nil, err
	}
	sources := []Source{own, r.fromHostBlock, r.fromAuthFile, r.fromAuthHelper}
	return func(ctx context.Context, host string) (Credentials, error) {
		host = canonicalHost(host)
		for _, source := range sources {
			found, err := source(ctx, host)
			switch {
			case err != nil && !task.SoftFail:
				return Credentials{}, fmt.Errorf("%w for %s: %w (auth_soft_fail goes on without them)", errCredentials, host, err)
			case err != nil:
				skipped(err)
			case found.Found():
				return found, nil
			}
		}
		return Credentials{}, nil
	}, nil
}

func (t TaskAuth) source(imageHost string) (Source, error) {
	if t.ServerAddress != "" && t.Password != "" && canonicalHost(t.ServerAddress) != imageHost {
		return nil, fmt.Errorf("auth.server_address %q: the image is from another registry, %s", t.ServerAddress, imageHost)
	}
	return func(_ context.Context, host string) (Credentials, error) {
		if host != imageHost || t.Password == "" {
			return Credentials{}, nil
		}
		return Credentials{Username: t.Username, Secret: t.Password, Source: "the task's auth block"}, nil
	}, nil
}

func (r *Registries) fromHostBlock(_ context.Context, host string) (Credentials, error) {
	block := r.hosts[host]
	if block.Password == "" {
		return Credentials{}, nil
	}
	return Credentials{
		Username: block.Username, Secret: block.Password,
		Source: fmt.Sprintf("the plugin's registry %q block", host),
	}, nil
}

func (r *Registries) fromAuthFile(ctx context.Context, host string) (Credentials, error) {
	if r.config.AuthFile == "" {
		return Credentials{}, nil
	}
	file, err := readDockerConfig(r.config.AuthFile)
	if err != nil {
		return Credentials{}, fmt.Errorf("auth.config %s: %w", r.config.AuthFile, err)
	}
	found, err := file.credentials(ctx, host)
	if err != nil {
		return Credentials{}, fmt.Errorf("auth.config %s: %w", r.config.AuthFile, err)
	}
	found.Source = "auth.config " + r.config.AuthFile
	return found, nil
}

func (r *Registries) fromAuthHelper(ctx context.Context, host string) (Credentials, error) {
	if r.config.AuthHelper == "" {
		return Credentials{}, nil
	}
	found, err := askHelper(ctx, r.config.AuthHelper, serverAddress(host))
	if err != nil {
		return Credentials{}, fmt.Errorf("auth.helper: %w", err)
	}
	found.Source = "auth.helper " + helperPrefix + r.config.AuthHelper
	return found, nil
}

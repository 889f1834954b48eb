package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// endpoint is one host that is asked for an image: the registry's own or a mirror.
type endpoint struct {
	docker.RegistryHost
	mirror    bool
	patience  time.Duration // with a mirror
	transport *http.Transport
}

// endpoints are the hosts that stand for a registry in the order in which they are asked: its mirrors, and itself.
func (r *Registries) endpoints(name string) ([]endpoint, error) {
	canonical := canonicalHost(name)
	var list []endpoint
	for _, text := range r.hosts[canonical].Mirrors {
		where, err := parseMirror(text)
		if err != nil {
			return nil, err
		}
		block := r.hosts[canonicalHost(where.host)]
		block.PlainHTTP = block.PlainHTTP || where.scheme == "http"
		found, err := newEndpoint(where.host, block)
		if err != nil {
			return nil, fmt.Errorf("mirror %s of %s: %w", text, name, err)
		}
		found.Path, found.mirror, found.patience = where.path, true, r.mirrorTimeout
		list = append(list, found)
	}
	server := name
	if canonical == dockerHub {
		server = dockerHubServer
	}
	own, err := newEndpoint(server, r.hosts[canonical])
	if err != nil {
		return nil, fmt.Errorf("registry %q: %w", canonical, err)
	}
	return append(list, own), nil
}

func newEndpoint(host string, block Host) (endpoint, error) {
	trust, err := block.tlsConfig()
	if err != nil {
		return endpoint{}, err
	}
	transport := docker.DefaultHTTPTransport(trust)
	client, scheme := &http.Client{Transport: transport}, "https"
	switch {
	case block.PlainHTTP:
		scheme = "http"
	case isLoopback(host) && !block.speaksTLS():
		// On this machine nobody can listen: whichever of the two it speaks is well.
		client.Transport = docker.NewHTTPFallback(transport)
	}
	return endpoint{
		RegistryHost: docker.RegistryHost{
			Client: client, Host: host, Scheme: scheme, Path: apiPath,
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		},
		transport: transport,
	}, nil
}

func (h Host) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: h.InsecureSkipVerify} //nolint:gosec // the operator said so
	if h.CAFile != "" {
		raw, err := os.ReadFile(h.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		if config.RootCAs, err = x509.SystemCertPool(); err != nil {
			return nil, fmt.Errorf("load the system's certificates: %w", err)
		}
		if !config.RootCAs.AppendCertsFromPEM(raw) {
			return nil, fmt.Errorf("ca_file %s: no certificate in PEM in it", h.CAFile)
		}
	}
	if h.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(h.CertFile, h.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("cert_file and key_file: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

var errNoEndpoint = errors.New("no host is configured for the registry")

package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
)

// What callers decide on. Every other error is final too.
var (
	// ErrNotFound means that the registry has no such image.
	ErrNotFound = errors.New("not in the registry")
	// ErrDenied means that the registry does not let us have it.
	ErrDenied = errors.New("access denied")
	// ErrTransient marks what may pass by itself.
	ErrTransient = errors.New("may pass")
)

// Explain says what an error on the way to a registry means and what to do about it. used are the credentials that the
// registry has seen.
func Explain(host string, err error, used Credentials) error {
	if err == nil {
		return nil
	}
	for _, explain := range []func(string, error, Credentials) error{
		explainEnd, explainAnswer, explainTLS, explainNetwork, explainClass,
	} {
		if explained := explain(host, err, used); explained != nil {
			return explained
		}
	}
	return fmt.Errorf("registry %s: %w", host, err)
}

// explainEnd leaves an end that came from the caller to the caller.
func explainEnd(_ string, err error, _ Credentials) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// explainAnswer is for a registry that answered with a status.
func explainAnswer(host string, err error, used Credentials) error {
	var status remoteerrors.ErrUnexpectedStatus
	if !errors.As(err, &status) {
		return nil
	}
	switch code := status.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return denied(host, err, used)
	case code == http.StatusNotFound:
		return notFound(host, err)
	case code == http.StatusTooManyRequests:
		return fmt.Errorf("registry %s: too many requests, it %w: credentials or a mirror may raise the limit: %w", host, ErrTransient, err)
	case code == http.StatusRequestTimeout || code >= http.StatusInternalServerError:
		return fmt.Errorf("registry %s: it has trouble, which %w: %w", host, ErrTransient, err)
	}
	return nil
}

func denied(host string, err error, used Credentials) error {
	if used.Found() {
		return fmt.Errorf("registry %s: %w: it refuses access with %s: check them, and what they may read: %w", host, ErrDenied, used, err)
	}
	return fmt.Errorf("registry %s: %w: it refuses access without credentials, if it has the image at all: check the image's name, "+
		"or set the task's auth, or the plugin's registry or auth: %w", host, ErrDenied, err)
}

func notFound(host string, err error) error {
	return fmt.Errorf("registry %s: %w: check the image's name and tag: %w", host, ErrNotFound, err)
}

// explainTLS is for two sides that do not believe or understand each other, which waiting does not mend.
func explainTLS(host string, err error, _ Credentials) error {
	var (
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		alert     tls.AlertError
	)
	switch {
	case errors.As(err, &authority):
		return fmt.Errorf("registry %s: its certificate is from nobody this machine trusts: set ca_file in the plugin's registry %q block: %w",
			host, host, err)
	case errors.As(err, &hostname), errors.As(err, &invalid):
		return fmt.Errorf("registry %s: its certificate is not valid for it: %w", host, err)
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fmt.Errorf("registry %s: it speaks no TLS: set plain_http in the plugin's registry %q block if that is meant: %w",
			host, host, err)
	case errors.As(err, &alert):
		return fmt.Errorf("registry %s: it breaks off the TLS handshake; if it asks for a client's certificate, set cert_file and key_file "+
			"in the plugin's registry %q block: %w", host, host, err)
	}
	return nil
}

func explainNetwork(host string, err error, _ Credentials) error {
	var lookup *net.DNSError
	var network net.Error
	switch {
	case errors.As(err, &lookup):
		return fmt.Errorf("registry %s: its name is not found, which %w: check the image's name and this machine's DNS: %w",
			host, ErrTransient, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("registry %s: it is away, which %w: %w", host, ErrTransient, err)
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("registry %s: the connection broke, which %w: %w", host, ErrTransient, err)
	}
	return nil
}

// explainClass is for what containerd's client says by the kind of its error.
func explainClass(host string, err error, used Credentials) error {
	switch {
	case errors.Is(err, docker.ErrInvalidAuthorization), errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return denied(host, err, used)
	case errdefs.IsNotFound(err):
		return notFound(host, err)
	}
	return nil
}

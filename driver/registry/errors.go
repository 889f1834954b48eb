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
	ErrDenied = errors.New("it refuses access")
	// ErrTransient marks what may pass by itself.
	ErrTransient = errors.New("may pass")
)

// errCredentials means that it cannot be found out who we are.
var errCredentials = errors.New("look for credentials")

// Error is what went wrong with a registry, and what to do about it.
type Error struct {
	Host string
	Err  error
	// Mirrors are what went wrong with its mirrors before.
	Mirrors []error
}

func (e *Error) Error() string {
	text := fmt.Sprintf("registry %s: %v", e.Host, e.Err)
	for _, err := range e.Mirrors {
		text += fmt.Sprintf(" (its mirror: %v)", err)
	}
	return text
}

// Unwrap leaves the mirrors out: what is wrong with them decides nothing.
func (e *Error) Unwrap() error { return e.Err }

// Explain says what an error on the way to a registry means and what to do about it. used are the credentials that the
// registry has seen. What came from the end of a context stays as it is; all else is an [Error].
func Explain(host string, err error, used Credentials) error {
	var known *Error
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case errors.Is(err, errCredentials):
		return &Error{Host: host, Err: err}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	for _, explain := range []func(string, error, Credentials) error{explainAnswer, explainTLS, explainNetwork, explainClass} {
		if explained := explain(host, err, used); explained != nil {
			return &Error{Host: host, Err: explained}
		}
	}
	return &Error{Host: host, Err: err}
}

// explainAnswer is for a registry that answered with a status.
func explainAnswer(_ string, err error, used Credentials) error {
	var status remoteerrors.ErrUnexpectedStatus
	if !errors.As(err, &status) {
		return nil
	}
	switch code := status.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return denied(err, used)
	case code == http.StatusNotFound:
		return errMissing
	case code == http.StatusTooManyRequests:
		return fmt.Errorf("too many requests, which %w: credentials or a mirror may raise the limit: %w", ErrTransient, err)
	case code == http.StatusRequestTimeout || code >= http.StatusInternalServerError:
		return fmt.Errorf("it has trouble, which %w: %w", ErrTransient, err)
	}
	return nil
}

var errMissing = fmt.Errorf("%w: check the image's name and tag", ErrNotFound)

func denied(err error, used Credentials) error {
	if used.Found() {
		return fmt.Errorf("%w with %s: check them, and what they may read: %w", ErrDenied, used, err)
	}
	return fmt.Errorf("%w without credentials, if the image is there at all: check its name, or set the task's auth, or the plugin's "+
		"registry or auth: %w", ErrDenied, err)
}

// explainTLS is for two sides that do not believe or understand each other, which waiting does not mend.
func explainTLS(host string, err error, _ Credentials) error {
	var (
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &authority):
		return fmt.Errorf("its certificate is from nobody this machine trusts: set ca_file in the plugin's registry %q block: %w", host, err)
	case errors.As(err, &hostname), errors.As(err, &invalid):
		return fmt.Errorf("its certificate is not valid for it: %w", err)
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fmt.Errorf("it speaks no TLS: set plain_http in the plugin's registry %q block if that is meant: %w", host, err)
	case isTLSAlert(err):
		return fmt.Errorf("it breaks off the TLS handshake; if it asks for a client's certificate, set cert_file and key_file in the plugin's "+
			"registry %q block: %w", host, err)
	}
	return nil
}

// isTLSAlert is for the other side's word that it does not like ours, which has no type of its own.
func isTLSAlert(err error) bool {
	var operation *net.OpError
	return errors.As(err, &operation) && operation.Op == "remote error"
}

func explainNetwork(_ string, err error, _ Credentials) error {
	var lookup *net.DNSError
	var operation *net.OpError
	switch {
	case errors.As(err, &lookup):
		return fmt.Errorf("its name is not found, which %w: check the image's name and this machine's DNS: %w", ErrTransient, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("it is away, which %w: %w", ErrTransient, err)
	case errors.As(err, &operation), isTimeout(err), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the connection broke, which %w: %w", ErrTransient, err)
	case strings.Contains(err.Error(), "read past expected size"):
		return fmt.Errorf("it sent more than the image has, which %w: %w", ErrTransient, err)
	}
	return nil
}

func isTimeout(err error) bool {
	var network net.Error // which an error of the file system is as well
	return errors.As(err, &network) && network.Timeout()
}

// explainClass is for what containerd's client says by the kind of its error.
func explainClass(_ string, err error, used Credentials) error {
	switch {
	case errors.Is(err, docker.ErrInvalidAuthorization), errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return denied(err, used)
	case errdefs.IsNotFound(err):
		return errMissing
	}
	return nil
}

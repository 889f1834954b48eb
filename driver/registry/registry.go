// Package registry knows how registries are reached: which hosts stand for one, how each is spoken to, and who we say we are.
//
// [New] takes the plugin's configuration. [Registries.Resolver] is what containerd's client pulls one image with, and
// [Registries.Credentials] finds the credentials for that, in docker's order of precedence. [Explain] says of what went wrong
// what it means, whether trying again may help, and what to do. No secret ever is in an error, a log line or a formatted value.
package registry

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Config is the part of the plugin's configuration that is about registries.
type Config struct {
	// Hosts are the registries that are reached in a special way, by host or host:port.
	Hosts map[string]Host
	// AuthFile is a docker config.json with credentials; it is read whenever it is needed.
	AuthFile string
	// AuthHelper is the end of the name of a docker-credential-… program on PATH.
	AuthHelper string
}

// Host says how a registry, or a mirror, is reached.
type Host struct {
	// Mirrors are asked before the registry itself, in this order: host, host:port, or a URL.
	Mirrors []string
	// CAFile has certificates, in PEM, that are trusted besides the system's.
	CAFile string
	// CertFile and KeyFile, in PEM, are shown to a registry that asks who its client is.
	CertFile string
	KeyFile  string
	// InsecureSkipVerify believes every certificate.
	InsecureSkipVerify bool
	// PlainHTTP speaks without TLS.
	PlainHTTP bool
	Username  string
	Password  string
}

// Registries knows how to reach every registry.
type Registries struct {
	hosts         map[string]Host // by canonical host
	config        Config
	mirrorTimeout time.Duration
}

// mirrorTimeout bounds the question whether a mirror has an image. One that is away must not keep the registry from being asked.
const mirrorTimeout = 15 * time.Second

// New checks the configuration, and names everything that is wrong with it at once. Files that it names need not be there yet:
// they are read whenever they are needed.
func New(config Config) (*Registries, error) {
	r := &Registries{config: config, hosts: map[string]Host{}, mirrorTimeout: mirrorTimeout}
	var wrong []error
	for name, host := range config.Hosts {
		canonical := canonicalHost(name)
		if _, twice := r.hosts[canonical]; twice {
			wrong = append(wrong, fmt.Errorf("registry %q: there are two blocks for %s", name, canonical))
		}
		r.hosts[canonical] = host
		for _, err := range append(host.validate(), checkHostName(name)) {
			if err != nil {
				wrong = append(wrong, fmt.Errorf("registry %q: %w", name, err))
			}
		}
	}
	if file := config.AuthFile; file != "" && !filepath.IsAbs(file) {
		wrong = append(wrong, fmt.Errorf("auth.config %q: must be an absolute path", file))
	}
	if helper := config.AuthHelper; strings.ContainsAny(helper, `/\ `) {
		wrong = append(wrong, fmt.Errorf("auth.helper %q: must be a helper's name without %s", helper, helperPrefix))
	}
	return r, errors.Join(wrong...)
}

func (h Host) validate() []error {
	var wrong []error
	for option, file := range map[string]string{"ca_file": h.CAFile, "cert_file": h.CertFile, "key_file": h.KeyFile} {
		if file != "" && !filepath.IsAbs(file) {
			wrong = append(wrong, fmt.Errorf("%s %q: must be an absolute path", option, file))
		}
	}
	if (h.CertFile == "") != (h.KeyFile == "") {
		wrong = append(wrong, errors.New("cert_file and key_file: one needs the other"))
	}
	if h.PlainHTTP && h.speaksTLS() {
		wrong = append(wrong, errors.New("plain_http: ca_file, cert_file and insecure_skip_verify mean nothing without TLS"))
	}
	if h.Password != "" && h.Username == "" {
		wrong = append(wrong, errors.New("password without username"))
	}
	for _, mirror := range h.Mirrors {
		_, err := parseMirror(mirror)
		wrong = append(wrong, err)
	}
	return wrong
}

func (h Host) speaksTLS() bool {
	return h.CAFile != "" || h.CertFile != "" || h.InsecureSkipVerify
}

func checkHostName(name string) error {
	if name == "" || strings.ContainsAny(name, "/@ ") {
		return errors.New(`must be a host or host:port, such as "registry.example.com:5000"`)
	}
	return nil
}

// mirror is where a mirror is.
type mirror struct {
	scheme string // empty when it was not said
	host   string
	path   string
}

// apiPath is where a registry answers.
const apiPath = "/v2"

// parseMirror reads a mirror as it is configured. A path that does not begin with /v2 itself gets it at its end.
func parseMirror(text string) (mirror, error) {
	scheme, rest, isURL := strings.Cut(text, "://")
	if !isURL {
		scheme, rest = "", text
	}
	parsed, err := url.Parse("https://" + rest)
	if err != nil || parsed.Host == "" || parsed.User != nil || parsed.RawQuery != "" ||
		!slices.Contains([]string{"", "http", "https"}, scheme) {
		return mirror{}, fmt.Errorf(`mirrors %q: must be a host, host:port or URL, such as "mirror.example.com:5000"`, text)
	}
	path := strings.TrimSuffix(parsed.Path, "/")
	if path != apiPath && !strings.HasPrefix(path, apiPath+"/") {
		path += apiPath
	}
	return mirror{scheme: scheme, host: parsed.Host, path: path}, nil
}

const (
	dockerHub = "docker.io"
	// dockerHubKey is Docker Hub's name in config.json and to credential helpers, for reasons of history.
	dockerHubKey = "https://index.docker.io/v1/"
	// dockerHubServer is the machine that answers for it.
	dockerHubServer = "registry-1.docker.io"
)

// TrimScheme takes away an https:// or http:// before a registry's or an image's name.
func TrimScheme(name string) string {
	return strings.TrimPrefix(strings.TrimPrefix(name, "https://"), "http://")
}

// canonicalHost makes one of the several ways to write a registry: "https://index.docker.io/v1/" is "docker.io", and
// "https://registry.example.com/v2/" is "registry.example.com".
func canonicalHost(name string) string {
	name, _, _ = strings.Cut(TrimScheme(name), "/")
	name = strings.ToLower(name)
	switch name {
	case "index.docker.io", dockerHubServer, "www.docker.io":
		return dockerHub
	}
	return name
}

// serverAddress is a registry's name in config.json and to credential helpers.
func serverAddress(host string) string {
	if host == dockerHub {
		return dockerHubKey
	}
	return host
}

// isLoopback is for registries on this machine, which may speak plain HTTP without being configured to.
func isLoopback(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	name = strings.Trim(name, "[]")
	return name == "localhost" || net.ParseIP(name).IsLoopback()
}

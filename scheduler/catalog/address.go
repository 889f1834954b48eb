package catalog

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// Address is where an instance listens, as net.Dialer wants it, and the Host header for it.
type Address struct {
	Network string // tcp or unix
	Address string
	Host    string
}

// maxSocketPath is what the kernel takes as the path of a unix socket, in bytes.
const maxSocketPath = 107

// ParseAddress reads http://HOST:PORT, HOST:PORT or unix:/PATH.
func ParseAddress(text string) (Address, error) {
	if path, unix := strings.CutPrefix(text, "unix:"); unix {
		return socketAddress(text, path)
	}
	if strings.HasPrefix(text, "https://") {
		return Address{}, fmt.Errorf("address %q: https is not supported between gateway and runtime: use http or a unix socket", text)
	}
	host := text
	if strings.Contains(text, "://") {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return Address{}, badAddress(text)
		}
		host = u.Host
	}
	name, port, err := net.SplitHostPort(host)
	if err != nil || name == "" || strings.ContainsAny(name, " /\r\n\t") {
		return Address{}, badAddress(text)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return Address{}, fmt.Errorf("address %q: the port must be a number from 1 to 65535", text)
	}
	return Address{Network: "tcp", Address: host, Host: host}, nil
}

func badAddress(text string) error {
	return fmt.Errorf("address %q: must be http://HOST:PORT, HOST:PORT or unix:/PATH", text)
}

func socketAddress(text, path string) (Address, error) {
	path = strings.TrimPrefix(path, "//")
	if !filepath.IsAbs(path) {
		return Address{}, fmt.Errorf("address %q: the socket's path must be absolute", text)
	}
	if len(path) > maxSocketPath {
		return Address{}, fmt.Errorf("address %q: the socket's path has %d bytes, more than the %d that the kernel takes", text, len(path), maxSocketPath)
	}
	return Address{Network: "unix", Address: path, Host: "runtime"}, nil
}

// ParseInstance reads NAME=ADDRESS, an instance on a command line. Join collects them.
func ParseInstance(text string) (name string, instance Instance, err error) {
	name, address, found := strings.Cut(text, "=")
	if !found || name == "" || address == "" {
		return "", Instance{}, fmt.Errorf("instance %q: must be NAME=ADDRESS, such as shared=http://127.0.0.1:8080", text)
	}
	if _, err := ParseAddress(address); err != nil {
		return "", Instance{}, fmt.Errorf("instance %q: %w", text, err)
	}
	return name, Instance{Address: address}, nil
}

// Join makes runtimes of instances written as NAME=ADDRESS; instances of one name make one runtime.
func Join(texts []string) ([]Runtime, error) {
	var runtimes []Runtime
	at := map[string]int{}
	for _, text := range texts {
		name, instance, err := ParseInstance(text)
		if err != nil {
			return nil, err
		}
		i, known := at[name]
		if !known {
			i = len(runtimes)
			at[name] = i
			runtimes = append(runtimes, Runtime{Name: name})
		}
		runtimes[i].Instances = append(runtimes[i].Instances, instance)
	}
	return runtimes, nil
}

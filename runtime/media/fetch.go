package media

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// The bounds of fetching an image.
const (
	fetchTimeout = 30 * time.Second
	maxRedirects = 5
	maxComplaint = 300 // bytes of what a server answers instead of an image
)

// PrivateAddresses are the addresses that images are not fetched from: those of prompt flow's AntiSSRF policy, and others that lead
// to the same machines (unspecified, multicast, and IPv4 inside of IPv6 by NAT64 and 6to4).
var PrivateAddresses = prefixes(
	"255.255.255.255/32", "168.63.129.16/32", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.51.100.0/24", "203.0.113.0/24",
	"169.254.0.0/16", "192.168.0.0/16", "198.18.0.0/15", "172.16.0.0/12", "100.64.0.0/10", "0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8",
	"25.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4",
	"::1/128", "fc00::/7", "fe80::/10", "fec0::/10", "2001::/32",
	"::/96", "ff00::/8", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16",
)

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		out[i] = netip.MustParsePrefix(text)
	}
	return out
}

// Fetcher fetches images from the web. Every name is resolved once, all of its addresses are checked, and a checked address is
// what is connected to: a name that changes its mind in between gains nothing. Redirects are checked in the same way.
type Fetcher struct {
	denied   []netip.Prefix
	resolver *net.Resolver
	direct   *http.Client
	proxied  *http.Client
	proxy    func(*http.Request) (*url.URL, error)
}

// NewFetcher returns a fetcher that connects to no address of denied. Proxies are those of the environment (HTTPS_PROXY and its
// kin).
func NewFetcher(denied []netip.Prefix) *Fetcher {
	f := &Fetcher{denied: denied, resolver: net.DefaultResolver, proxy: http.ProxyFromEnvironment}
	f.direct = &http.Client{Transport: &http.Transport{DialContext: f.dial, MaxIdleConnsPerHost: 4, IdleConnTimeout: fetchTimeout}, CheckRedirect: f.redirect, Timeout: fetchTimeout}
	f.proxied = &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}, CheckRedirect: f.redirect, Timeout: fetchTimeout}
	return f
}

var errDenied = errors.New("the address is not a public one")

// dial connects to a checked address of a host.
func (f *Fetcher) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addresses, err := f.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	dialer := net.Dialer{Timeout: 10 * time.Second}
	for _, a := range addresses {
		if conn, err = dialer.DialContext(ctx, network, net.JoinHostPort(a.String(), port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// resolve returns all addresses of a host, or an error when one of them is denied.
func (f *Fetcher) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	addresses, err := f.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	for i, a := range addresses {
		addresses[i] = a.Unmap().WithZone("")
		for _, p := range f.denied {
			if p.Contains(addresses[i]) {
				return nil, errDenied
			}
		}
	}
	if len(addresses) == 0 {
		return nil, errDenied
	}
	return addresses, nil
}

func (f *Fetcher) redirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errors.New("too many redirects")
	}
	return f.allowed(req)
}

// allowed checks a URL before it is asked for. Without a proxy, dial checks the addresses once more.
func (f *Fetcher) allowed(req *http.Request) error {
	if s := req.URL.Scheme; s != "http" && s != "https" {
		return errors.New("the scheme is not http or https")
	}
	_, err := f.resolve(req.Context(), req.URL.Hostname())
	return err
}

// fetch gets an image. What fails says no more than prompt flow does: a caller is not to learn what answers inside of the network.
func (f *Fetcher) fetch(ctx context.Context, address, mime string) (*value.Image, error) {
	if f == nil {
		return nil, invalid("Images are not fetched from URLs by this runtime: {url}. Please send the image in base64.", "url", cut(address))
	}
	failed := invalid("Failed to fetch image from URL: {url}.", "url", cut(address))
	bounded, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(bounded, http.MethodGet, strings.TrimSpace(address), nil)
	if err != nil || f.allowed(req) != nil {
		return nil, failed
	}
	req.Header.Set("User-Agent", "nomad-promptflow")
	client := f.direct
	if proxy, err := f.proxy(req); err != nil || proxy != nil {
		client = f.proxied
	}
	resp, err := client.Do(req)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, failed
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, refused(address, resp)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, MaxBytes+1))
	switch {
	case err != nil:
		return nil, failed
	case len(data) > MaxBytes:
		return nil, tooLarge(address)
	}
	return value.NewImage(data, mime, address), nil
}

func refused(address string, resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxComplaint)) // what there is of it
	return invalid("Failed to fetch image from URL: {url}. Error code: {error_code}. Error message: {error_message}.",
		"url", cut(address), "error_code", strconv.Itoa(resp.StatusCode), "error_message", strings.ToValidUTF8(string(text), ""))
}

// isURL is prompt flow's rule: there is a scheme and a host (Python's urlparse).
func isURL(s string) bool {
	s = strings.TrimLeftFunc(s, func(r rune) bool { return r <= ' ' })
	s = strings.NewReplacer("\t", "", "\r", "", "\n", "").Replace(s)
	scheme, rest, found := strings.Cut(s, ":")
	if !found || scheme == "" || !isLetter(scheme[0]) || strings.Trim(scheme, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.") != "" {
		return false
	}
	host, found := strings.CutPrefix(rest, "//")
	if !found {
		return false
	}
	if i := strings.IndexAny(host, "/?#"); i >= 0 {
		host = host[:i]
	}
	return host != "" && strings.Contains(host, "[") == strings.Contains(host, "]")
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

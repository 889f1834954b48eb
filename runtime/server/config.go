package server

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Config is how a runtime is set up. Zero values mean the defaults.
type Config struct {
	Listen         string // host:port or unix:PATH; default 127.0.0.1:8080
	Runtime        string // its name; default "local"
	Instance       string // which of the runtime's instances this is; default none
	Type           string // shared (default) or pinned
	Owner          string // of a pinned runtime
	MaxConcurrency int    // runs at once; default 32
	Workers        int    // Python workers per flow; default the number of processors
	Connections    string // file; default none
	Flow           string // folder or bundle file to serve; default none
	Trust          string // "file:PATH" of a token file; default: everybody
	Data           string // folder for bundles; default one that is removed in the end
	Python         string // interpreter; default python3
	Version        string // of this program, for /version
	Environment    string // the environment's name, and below what it resolved to, for /version; default none
	Digest         string
	// ExecutorService opens prompt flow's executor-service API, whose callers name folders of this machine; default: closed.
	ExecutorService bool
	NoImageURLs     bool        // images are not fetched from URLs; default: they are, from public addresses
	Init            *value.Dict // arguments of the served flex flow's class; default none
	Included        []string    // outputs of /score; nil: all that are not for evaluation only
	BuildInfo       string
	LineTimeout     time.Duration // 0: none for single lines
	NodeTimeout     time.Duration // 0: none
	MaxFlows        int           // bundles kept; default 64
	MaxFlowBytes    int64         // bytes of unpacked bundles kept; default 4 GiB
	MaxBody         int64         // bytes of a submission; default 64 MiB
	MaxBundle       int64         // bytes of a bundle on the wire; default 512 MiB
	Logger          hclog.Logger  // default: none
}

func (c Config) withDefaults() Config {
	text := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	text(&c.Listen, "127.0.0.1:8080")
	text(&c.Runtime, "local")
	text(&c.Type, "shared")
	text(&c.Python, "python3")
	text(&c.Version, "0.0.0")
	if c.MaxConcurrency <= 0 {
		c.MaxConcurrency = 32
	}
	if c.Workers <= 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.MaxFlows <= 0 {
		c.MaxFlows = 64
	}
	bytes := func(n *int64, v int64) {
		if *n <= 0 {
			*n = v
		}
	}
	bytes(&c.MaxFlowBytes, 4<<30)
	bytes(&c.MaxBody, 64<<20)
	bytes(&c.MaxBundle, 512<<20)
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	return c
}

// ConfigFromEnv reads and checks the environment. All mistakes are reported at once.
func ConfigFromEnv(env connection.Lookup) (Config, error) {
	get := func(name string) string { v, _ := env(name); return v }
	c := Config{
		Listen: get("PROMPTFLOW_LISTEN"), Runtime: get("PROMPTFLOW_RUNTIME"), Instance: get("NOMAD_ALLOC_ID"), Type: get("PROMPTFLOW_RUNTIME_TYPE"), Owner: get("PROMPTFLOW_OWNER"),
		Connections: get("PROMPTFLOW_CONNECTIONS"), Flow: get("PROMPTFLOW_FLOW"), Trust: get("PROMPTFLOW_TRUST"), Data: get("PROMPTFLOW_DATA"),
		Python: get("PROMPTFLOW_PYTHON"), BuildInfo: get("BUILD_INFO"),
		Environment: get("PROMPTFLOW_ENVIRONMENT"), Digest: get("PROMPTFLOW_ENVIRONMENT_DIGEST"),
	}
	if task := get("NOMAD_TASK_DIR"); c.Data == "" && task != "" {
		c.Data = filepath.Join(task, "promptflow")
	}
	var timeout, nodeTimeout int
	var err, initErr, serviceErr, urlsErr error
	urls := true
	c.Included, err = included(get("PROMPTFLOW_RESPONSE_INCLUDED_FIELDS"))
	c.Init, initErr = initConfig(get("PF_FLOW_INIT_CONFIG"))
	c.ExecutorService, serviceErr = onOff("PROMPTFLOW_EXECUTOR_SERVICE", get("PROMPTFLOW_EXECUTOR_SERVICE"), false)
	urls, urlsErr = onOff("PROMPTFLOW_IMAGE_URLS", get("PROMPTFLOW_IMAGE_URLS"), true)
	c.NoImageURLs = !urls
	errs := []error{
		number(get, "PROMPTFLOW_MAX_CONCURRENCY", 1, &c.MaxConcurrency), number(get, "PROMPTFLOW_WORKERS", 0, &c.Workers),
		number(get, "PF_LINE_TIMEOUT_SEC", 1, &timeout), number(get, "PROMPTFLOW_NODE_TIMEOUT_SEC", 1, &nodeTimeout),
		err, initErr, serviceErr, urlsErr,
	}
	c.LineTimeout, c.NodeTimeout = time.Duration(timeout)*time.Second, time.Duration(nodeTimeout)*time.Second
	c = c.withDefaults()
	return c, errors.Join(append(errs, c.check())...)
}

// onOff reads a switch.
func onOff(name, text string, byDefault bool) (bool, error) {
	switch strings.ToLower(text) {
	case "":
		return byDefault, nil
	case "on", "true", "1":
		return true, nil
	case "off", "false", "0":
		return false, nil
	default:
		return byDefault, fmt.Errorf("read %s %q: want on or off", name, text)
	}
}

// initConfig reads PF_FLOW_INIT_CONFIG, a JSON object.
func initConfig(text string) (*value.Dict, error) {
	if text == "" {
		return nil, nil
	}
	d, err := value.DecodeDict([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("read PF_FLOW_INIT_CONFIG: it can't be deserialized to json: %w: want an object of argument names and values", err)
	}
	return d, nil
}

func number(get func(string) string, name string, least int, to *int) error {
	text := get(name)
	if text == "" {
		return nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least {
		return fmt.Errorf("read %s %q: not a number of at least %d", name, text, least)
	}
	*to = n
	return nil
}

func (c Config) check() error {
	var errs []error
	if path, unix := strings.CutPrefix(c.Listen, "unix:"); unix {
		if !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("read PROMPTFLOW_LISTEN %q: the socket's path must be absolute", c.Listen))
		}
	} else if _, port, err := net.SplitHostPort(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("read PROMPTFLOW_LISTEN %q: want host:port or unix:PATH", c.Listen))
	} else if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		errs = append(errs, fmt.Errorf("read PROMPTFLOW_LISTEN %q: the port must be a number from 0 to 65535", c.Listen))
	}
	if !slices.Contains([]string{"shared", "pinned"}, c.Type) {
		errs = append(errs, fmt.Errorf("read PROMPTFLOW_RUNTIME_TYPE %q: want shared or pinned", c.Type))
	}
	if c.Type == "shared" && c.Owner != "" {
		errs = append(errs, fmt.Errorf("read PROMPTFLOW_OWNER %q: only a pinned runtime has an owner", c.Owner))
	}
	if c.Trust != "" && !strings.HasPrefix(c.Trust, "file:") {
		errs = append(errs, fmt.Errorf("read PROMPTFLOW_TRUST %q: only file:PATH of a token file is supported", c.Trust))
	}
	return errors.Join(errs...)
}

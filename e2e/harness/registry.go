package harness

import (
	"context"

	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	"golang.org/x/crypto/bcrypt"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

const (
	registryStart = 30 * time.Second
	registryPush  = time.Minute
)

// RegistryOptions say how a registry wants to be spoken to. With none it speaks plain HTTP to everybody.
type RegistryOptions struct {
	// Authority makes it speak TLS, with a certificate of this authority.
	Authority *Authority
	// ClientCertificates serves only those who show a certificate of Authority.
	ClientCertificates bool
	// User and Password are asked for when they are set.
	User, Password string
}

// RegistryServer is a Debian docker-registry of a test's own.
type RegistryServer struct {
	// Host is its address and port, on loopback.
	Host string
	// Root is where it keeps its content.
	Root string

	t       testing.TB
	options RegistryOptions
	command *exec.Cmd
	exited  chan struct{}
	logFile string
}

// Registry starts a registry, which ends with the test.
func Registry(t testing.TB, options RegistryOptions) *RegistryServer {
	t.Helper()
	dir := t.TempDir()
	r := &RegistryServer{
		Root: filepath.Join(dir, "data"), t: t, options: options, logFile: filepath.Join(dir, "registry.log"),
	}
	config := filepath.Join(dir, "config.yml")
	r.write(config, r.configuration(dir))
	r.start(config)
	return r
}

// configuration leaves the choice of the port to the kernel. JSON is YAML, and quotes what must be.
func (r *RegistryServer) configuration(dir string) []byte {
	r.t.Helper()
	server := map[string]any{"addr": "127.0.0.1:0", "secret": "test"}
	if authority := r.options.Authority; authority != nil {
		pair := authority.Issue("registry")
		transport := map[string]any{"certificate": pair.CertFile, "key": pair.KeyFile}
		if r.options.ClientCertificates {
			transport["clientcas"] = []string{authority.File}
		}
		server["tls"] = transport
	}
	config := map[string]any{
		"version": "0.1",
		"log":     map[string]any{"accesslog": map[string]any{"disabled": true}},
		"storage": map[string]any{
			"filesystem": map[string]any{"rootdirectory": r.Root},
			"delete":     map[string]any{"enabled": true},
		},
		"http": server,
	}
	if r.options.User != "" {
		passwords := filepath.Join(dir, "htpasswd")
		hash, err := bcrypt.GenerateFromPassword([]byte(r.options.Password), bcrypt.MinCost)
		r.check(err)
		r.write(passwords, []byte(r.options.User+":"+string(hash)+"\n"))
		config["auth"] = map[string]any{"htpasswd": map[string]any{"realm": "test", "path": passwords}}
	}
	return jsonOf(r.t, config)
}

func (r *RegistryServer) start(config string) {
	r.t.Helper()
	log, err := os.Create(r.logFile)
	r.check(err)
	defer log.Close()
	command := exec.CommandContext(context.WithoutCancel(r.t.Context()), "docker-registry", "serve", config)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		r.t.Fatalf("harness: start docker-registry: %v: run make bootstrap", err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = command.Wait() // it says how the signal ended it
	}()
	r.command, r.exited = command, exited
	r.t.Cleanup(r.Stop)
	r.Host = r.awaitListening()
}

// listening is what the registry logs once its socket is open.
var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)

func (r *RegistryServer) awaitListening() string {
	r.t.Helper()
	for deadline := time.Now().Add(registryStart); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		log, err := os.ReadFile(r.logFile)
		r.check(err)
		if found := listening.FindSubmatch(log); found != nil {
			return string(found[1])
		}
		select {
		case <-r.exited:
			r.t.Fatalf("harness: docker-registry ended:\n%s", log)
		default:
		}
	}
	r.t.Fatalf("harness: docker-registry does not listen after %s", registryStart)
	return ""
}

// Stop ends the registry. Its port refuses connections from then on.
func (r *RegistryServer) Stop() {
	if r.command == nil {
		return
	}
	_ = r.command.Process.Signal(syscall.SIGKILL)
	<-r.exited
	r.command = nil
}

// Image is the reference of an image in the registry: Image("team/image:1").
func (r *RegistryServer) Image(name string) string { return r.Host + "/" + name }

// Push copies what tag stands for in an OCI layout to repository:reference, and returns its digest.
func (r *RegistryServer) Push(layout, tag, repository, reference string) digest.Digest {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), registryPush)
	defer cancel()
	source, err := oci.NewFromFS(ctx, os.DirFS(layout))
	r.check(err)
	target, err := remote.NewRepository(r.Host + "/" + repository)
	r.check(err)
	target.PlainHTTP = r.options.Authority == nil
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	if r.options.Authority != nil {
		transport.TLSClientConfig = r.options.Authority.ClientTLS()
	}
	client := &auth.Client{Client: &http.Client{Transport: transport}}
	if r.options.User != "" {
		client.Credential = auth.StaticCredential(r.Host, auth.Credential{
			Username: r.options.User, Password: r.options.Password,
		})
	}
	target.Client = client
	desc, err := oras.Copy(ctx, source, tag, target, reference, oras.DefaultCopyOptions)
	if err != nil {
		r.t.Fatalf("harness: push %s to %s/%s:%s: %v", tag, r.Host, repository, reference, err)
	}
	return desc.Digest
}

// BlobFile is the file in which the registry keeps a blob.
func (r *RegistryServer) BlobFile(d digest.Digest) string {
	return filepath.Join(r.Root, "docker/registry/v2/blobs", string(d.Algorithm()), d.Encoded()[:2], d.Encoded(), "data")
}

func (r *RegistryServer) write(path string, content []byte) {
	r.t.Helper()
	r.check(os.WriteFile(path, content, 0o600))
}

func (r *RegistryServer) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("harness: registry: %v", err)
	}
}

package driver_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

func TestConformance_Pull(t *testing.T) {
	m := newMachine(t)
	hub := newHub(t, harness.RegistryOptions{}, says("1", "one"), says("2", "two"))
	f := newFront(t, hub)
	n := m.launch(t, "")
	events := n.events()
	image := f.Host + "/team/image:"

	t.Run("Pull", func(t *testing.T) {
		task := n.task(imageTask(image + "1"))
		task.runs("one")
		eventually(t, "both events come", func() bool { return len(events.of(task)) == 2 })
		seen := events.of(task)
		test.StrContains(t, seen[0], "Pull of image "+image+"1 started")
		test.StrContains(t, seen[1], "Pull of image "+image+"1 done: ")
		test.StrContains(t, seen[1], "in 1 layers")
		asked := f.manifests.Load()
		n.task(imageTask(image+"1", `image_pull_policy = "never"`)).runs("one")
		n.task(imageTask(image + "1")).runs("one")
		test.Eq(t, asked, f.manifests.Load(), test.Sprint("what is here is not asked for"))
		n.task(imageTask(image+"2", `image_pull_policy = "never"`)).fails(false, "image_pull_policy is never")
		test.Eq(t, asked, f.manifests.Load())
	})
	t.Run("ForcePull", func(t *testing.T) {
		asked, fetched := f.manifests.Load(), f.blobs.Load()
		n.task(imageTask(image+"1", `image_pull_policy = "always"`)).runs("one")
		test.Greater(t, asked, f.manifests.Load())
		test.Eq(t, fetched, f.blobs.Load(), test.Sprint("what is here is not fetched again"))

		publish(t, hub, says("1", "newer"))
		n.task(imageTask(image + "1")).runs("one")
		n.task(imageTask(image+"1", `image_pull_policy = "always"`)).runs("newer")
		n.task(imageTask(image + "1")).runs("newer")
	})
	t.Run("ForcePull_RepoDigest", func(t *testing.T) {
		pinned := publish(t, hub, says("pinned", "pinned"))["pinned"]
		publish(t, hub, says("pinned", "moved"))
		for _, options := range []string{`image_pull_policy = "always"`, ""} {
			n.task(imageTask(f.Host+"/team/image@"+pinned.String(), options)).runs("pinned")
			n.task(imageTask(f.Host+"/team/image:pinned@"+pinned.String(), options)).runs("pinned")
		}
	})
	t.Run("Start_NoImage", func(t *testing.T) {
		n.task(imageTask(image+"none")).fails(false, "image not found", "registry "+f.Host, "check the image's name and tag")
		n.task(imageTask(f.Host+"/nobody/nothing:1")).fails(false, "image not found", "registry "+f.Host)
		n.task(imageTask(f.Host+"/team/image@sha256:"+strings.Repeat("0", 64))).fails(false, "image not found")
		n.task(`environment = "none:1"`).fails(false, "image not found", "publish it to "+m.layout)
	})
	t.Run("Start_BadPull_Recoverable", func(t *testing.T) {
		gone := newHub(t, harness.RegistryOptions{})
		gone.Stop()
		n.task(imageTask(gone.Image("team/image:1"))).fails(true, "registry "+gone.Host, "it is away, which may pass")
		n.task(imageTask("registry.invalid/team/image:1")).fails(true, "registry registry.invalid", "its name is not found", "DNS")
		for _, c := range []struct {
			status int
			want   string
			retry  bool
		}{
			{http.StatusTooManyRequests, "too many requests", true},
			{http.StatusInternalServerError, "it has trouble", true},
			{http.StatusBadGateway, "it has trouble", true},
			{http.StatusServiceUnavailable, "it has trouble", true},
			{http.StatusForbidden, "it refuses access without credentials", false},
			{http.StatusTeapot, "418", false},
		} {
			f.withStatus(c.status)
			n.task(imageTask(image+"2")).fails(c.retry, "registry "+f.Host, c.want)
		}
		f.with(func(w http.ResponseWriter, r *http.Request, _ http.Handler) { hijackAndClose(w) })
		n.task(imageTask(image+"2")).fails(true, "registry "+f.Host, "the connection broke")
		f.with(nil)
	})
	t.Run("parseImage", func(t *testing.T) {
		n.task(imageTask("Not An Image")).fails(false, "not an image reference")
		n.task(imageTask("http://"+image+"2", `image_pull_policy = "always"`)).runs("two")
	})
}

// hijackAndClose breaks the connection without an answer.
func hijackAndClose(w http.ResponseWriter) {
	connection, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = connection.Close()
	}
}

func TestConformance_PullImage_ProgressError(t *testing.T) {
	m := newMachine(t)
	hub := newHub(t, harness.RegistryOptions{}, withNoise(t, says("1", "one"), 4<<20))
	f := newFront(t, hub)
	n := m.launch(t, "")
	noise := biggestBlob(t, hub.Root).Encoded()
	layer := func(breaks func(w http.ResponseWriter, r *http.Request, registry http.Handler)) {
		f.with(func(w http.ResponseWriter, r *http.Request, registry http.Handler) {
			if strings.Contains(r.URL.Path, noise) {
				breaks(w, r, registry)
				return
			}
			registry.ServeHTTP(w, r)
		})
	}
	fails := func(wants ...string) {
		t.Helper()
		n.task(imageTask(f.Host+"/team/image:1")).fails(true, wants...)
	}
	half := func(w http.ResponseWriter, status int) {
		w.Header().Set("Content-Length", fmt.Sprint(4<<20))
		w.WriteHeader(status)
		_, _ = w.Write(make([]byte, 2<<20))
		_ = http.NewResponseController(w).Flush()
		hijackAndClose(w)
	}
	layer(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { half(w, http.StatusOK) })
	fails("may pass")

	// A layer that is not what its digest says was broken on the way, as far as one can tell; trying again fetches all of it.
	content, err := os.ReadFile(hub.BlobFile(biggestBlob(t, hub.Root)))
	must.NoError(t, err)
	broken := append([]byte(nil), content...)
	broken[len(broken)/2] ^= 1
	layer(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { _, _ = w.Write(broken) })
	fails("what came is not what was asked for", "may pass")
	layer(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { _, _ = w.Write(content[:len(content)-1]) })
	fails("may pass")
	layer(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { _, _ = w.Write(append(broken, 0)) })
	fails("may pass")
	layer(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(http.StatusBadGateway) })
	fails("it has trouble")

	// What is whole and yet no layer stays so.
	f.with(nil)
	publish(t, hub, harness.BusyboxImage{Tag: "garbage", Garbage: true})
	n.task(imageTask(f.Host+"/team/image:garbage")).fails(false, "the image itself is broken")

	// A connection that breaks once is taken up again where it broke.
	var once sync.Once
	layer(func(w http.ResponseWriter, r *http.Request, registry http.Handler) {
		isFirst := false
		once.Do(func() { isFirst = true })
		if isFirst {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			_, _ = w.Write(content[:len(content)/2])
			_ = http.NewResponseController(w).Flush()
			hijackAndClose(w)
			return
		}
		registry.ServeHTTP(w, r)
	})
	n.task(imageTask(f.Host + "/team/image:1")).runs("one")
}

// stuck answers with the beginning of a blob and then says nothing more until the test ends.
func stuck(t *testing.T) func(http.ResponseWriter, *http.Request, http.Handler) {
	t.Helper()
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	return func(w http.ResponseWriter, r *http.Request, registry http.Handler) {
		if !isBlob(r) {
			registry.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Length", "1000000")
		_, _ = io.WriteString(w, "beginning")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-end:
		case <-r.Context().Done():
		}
	}
}

func TestConformance_PullImage_Timeouts(t *testing.T) {
	m := newMachine(t)
	hub := newHub(t, harness.RegistryOptions{})
	one := publish(t, hub, says("1", "one"))["1"]
	f := newFront(t, hub)
	f.with(stuck(t))
	image := imageTask(f.Host + "/team/image:1")

	t.Run("Pull_Timeout", func(t *testing.T) {
		n := m.launch(t, `image_pull_timeout = "1s"`)
		n.task(image).fails(true, "image_pull_timeout of 1s is over", "0 of 1 layers")
	})
	t.Run("Pull_Timeout/of the task", func(t *testing.T) {
		n := m.launch(t, "")
		n.task(image+"\nimage_pull_timeout = \"300ms\"").fails(true, "image_pull_timeout of 300ms is over")
	})
	t.Run("pull_activity_timeout", func(t *testing.T) {
		n := m.launch(t, `pull_activity_timeout = "500ms"`)
		n.task(image).fails(true, "nothing came for 500ms (pull_activity_timeout)", "may pass")
	})
	t.Run("pull_concurrency", func(t *testing.T) {
		n := m.launch(t, "pull_concurrency = 1\nimage_pull_timeout = \"2s\"")
		asked := f.blobs.Load()
		first := make(chan error, 1)
		task := n.task(image)
		go func() { first <- task.start() }()
		eventually(t, "the fetch has begun", func() bool { return f.blobs.Load() > asked })
		err := n.task(imageTask(f.Host+"/team/image@"+one.String(), `image_pull_timeout = "200ms"`)).start()
		must.ErrorContains(t, err, "image_pull_timeout of 200ms is over")
		must.ErrorContains(t, err, "it still waited for other fetches to end")
		must.ErrorContains(t, <-first, "0 of 1 layers")
	})
	t.Run("one of two gives up", func(t *testing.T) {
		n := m.launch(t, keepNothing)
		goOn, asked := make(chan struct{}), f.blobs.Load()
		f.with(func(w http.ResponseWriter, r *http.Request, registry http.Handler) {
			if isBlob(r) {
				<-goOn
			}
			registry.ServeHTTP(w, r)
		})
		patient := n.task(image)
		started := make(chan error, 1)
		go func() { started <- patient.start() }()
		eventually(t, "the fetch has begun", func() bool { return f.blobs.Load() > asked })
		err := n.task(image + "\nimage_pull_timeout = \"200ms\"").start()
		must.ErrorContains(t, err, "image_pull_timeout of 200ms is over")
		close(goOn)
		must.NoError(t, <-started)
		test.Eq(t, plugin.ExitResult{}, *patient.wait())
		test.Eq(t, asked+2, f.blobs.Load(), test.Sprint("a layer and a configuration, each fetched once"))
	})
}

// A daemon that dies over a fetch is back some time; so may the task be.
func TestConformance_Pull_engineDies(t *testing.T) {
	m := newMachine(t)
	hub := newHub(t, harness.RegistryOptions{}, says("1", "one"))
	f := newFront(t, hub)
	f.with(stuck(t))
	n := m.launch(t, "")
	task := n.task(imageTask(f.Host + "/team/image:1"))
	started := make(chan error, 1)
	go func() { started <- task.start() }()
	eventually(t, "the fetch has begun", func() bool { return f.blobs.Load() > 0 })
	m.daemon.Kill()
	f.with(nil)
	f.server.CloseClientConnections()
	m.daemon.Start()
	if err := <-started; err != nil {
		test.True(t, plugin.IsRecoverable(err), test.Sprint(err))
	}
	n.seen()
	n.task(imageTask(f.Host + "/team/image:1")).runs("one")
}

func TestConformance_ConcurrentPulls(t *testing.T) {
	m := newMachine(t)
	hub := newHub(t, harness.RegistryOptions{}, withNoise(t, says("1", "one"), 1<<20))
	f := newFront(t, hub)
	n := m.launch(t, "")
	events := n.events()
	// Nothing is answered before all have asked, so that they do ask at the same time.
	var tasks []*agentTask
	for range 6 {
		tasks = append(tasks, n.task(imageTask(f.Host+"/team/image:1")))
	}
	all := make(chan struct{})
	f.with(func(w http.ResponseWriter, r *http.Request, registry http.Handler) {
		<-all
		registry.ServeHTTP(w, r)
	})
	var wait sync.WaitGroup
	for _, task := range tasks {
		wait.Go(func() { test.NoError(t, task.start()) })
	}
	eventually(t, "everyone waits", func() bool {
		for _, task := range tasks {
			if len(events.of(task)) == 0 {
				return false
			}
		}
		return true
	})
	close(all)
	wait.Wait()
	test.Eq(t, 3, f.blobs.Load(), test.Sprint("two layers and a configuration, each fetched once"))
	for _, task := range tasks {
		test.Eq(t, plugin.ExitResult{}, *task.wait())
		eventually(t, "both events come to everyone", func() bool { return len(events.of(task)) == 2 })
		test.StrContains(t, events.of(task)[1], "done")
	}
}

func TestConformance_PullImage_diskFull(t *testing.T) {
	harness.Integration(t)
	m := &machine{daemon: harness.ContainerdOnSmallDisk(t, 16<<20), layout: t.TempDir()}
	hub := newHub(t, harness.RegistryOptions{}, withNoise(t, says("big", "big"), 24<<20), says("small", "small"))
	n := m.launch(t, "")
	n.task(imageTask(hub.Image("team/image:big"))).fails(false, "the disk that holds "+m.daemon.Root, "is full: make room there")
	n.task(imageTask(hub.Image("team/image:small"))).runs("small")
}

func TestConformance_createImagePlatform(t *testing.T) {
	m := newMachine(t)
	other := "arm64"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	foreign := ocispec.Platform{OS: "linux", Architecture: other}
	hub := newHub(t, harness.RegistryOptions{},
		harness.BusyboxImage{Tag: "both", Config: ocispec.ImageConfig{Cmd: []string{"/bin/echo", "own"}}},
		harness.BusyboxImage{Tag: "both", Config: ocispec.ImageConfig{Cmd: []string{"/bin/echo", "foreign"}}, Platform: foreign},
		harness.BusyboxImage{Tag: "foreign", Config: ocispec.ImageConfig{Cmd: []string{"/bin/echo", "foreign"}}, Platform: foreign},
		harness.BusyboxImage{Tag: "foreigns", Config: ocispec.ImageConfig{Cmd: []string{"/bin/echo", "foreign"}}, Platform: foreign},
		harness.BusyboxImage{Tag: "foreigns", Config: ocispec.ImageConfig{Cmd: []string{"/bin/echo", "z"}}, Platform: ocispec.Platform{OS: "linux", Architecture: "s390x"}},
	)
	n := m.launch(t, "")
	events := n.events()
	platform := fmt.Sprintf("platform = %q", "linux/"+other)

	n.task(imageTask(hub.Image("team/image:foreign"))).fails(false, "it is for linux/"+other+" only, not for linux/"+runtime.GOARCH)
	n.task(imageTask(hub.Image("team/image:foreigns"))).fails(false, "it is for linux/"+other+", linux/s390x only, not for linux/"+runtime.GOARCH)
	n.task(imageTask(hub.Image("team/image:both"), `platform = "linux/s390x"`)).fails(false, "not for linux/s390x")
	n.task(imageTask(hub.Image("team/image:both"), `platform = "?"`)).fails(false, `platform "?"`)

	// The commands in these images are this machine's whatever they say, so all of them run here.
	for _, c := range []struct{ image, option, want string }{
		{"both", "", "own"},
		{"both", platform, "foreign"},
		{"both", "", "own"},
		{"both", platform + "\nimage_pull_policy = \"never\"", "foreign"},
		{"foreign", platform, "foreign"},
		{"foreigns", platform, "foreign"},
	} {
		task := n.task(imageTask(hub.Image("team/image:"+c.image), c.option))
		task.runs(c.want)
		warned := strings.Contains(strings.Join(events.of(task), "\n"), "binfmt_misc")
		eventually(t, "the warning comes", func() bool {
			warned = strings.Contains(strings.Join(events.of(task), "\n"), "binfmt_misc")
			return warned == (c.want == "foreign")
		})
	}
	// One that is stored for another platform only is no image for this one.
	n.task(imageTask(hub.Image("team/image:foreign"))).fails(false, "it is for linux/"+other+" only")
	n.task(imageTask(hub.Image("team/image:foreign"), `image_pull_policy = "never"`)).fails(false, "it is for linux/"+other+" only")
}

func TestConformance_Start_Image_HTTPS(t *testing.T) {
	m := newMachine(t)
	ca := harness.NewAuthority(t)
	pair := ca.Issue("client")
	hub := newHub(t, harness.RegistryOptions{Authority: ca}, says("1", "one"))
	strict := newHub(t, harness.RegistryOptions{Authority: ca, ClientCertificates: true}, says("1", "one"))
	plain := newHub(t, harness.RegistryOptions{}, says("1", "one"))
	_, port, _ := strings.Cut(hub.Host, ":")
	trust, show := fmt.Sprintf("ca_file = %q", ca.File), fmt.Sprintf("cert_file = %q\nkey_file = %q", pair.CertFile, pair.KeyFile)
	for _, c := range []struct {
		name, host, config string
		wants              []string // of the error
	}{
		{"own authority", hub.Host, trust, nil},
		{"own authority, by name", "localhost:" + port, trust, nil},
		{"unknown authority", hub.Host, "", []string{"nobody this machine trusts", "set ca_file in the plugin's registry"}},
		{"any certificate", hub.Host, "insecure_skip_verify = true", nil},
		{"HTTP to TLS", hub.Host, "plain_http = true", []string{"registry " + hub.Host}},
		{"TLS to HTTP", plain.Host, trust, []string{"it speaks no TLS", "plain_http"}},
		{"HTTP, said", plain.Host, "plain_http = true", nil},
		{"HTTP on this machine", plain.Host, "", nil},
		{"client certificate", strict.Host, trust + "\n" + show, nil},
		{"no client certificate", strict.Host, trust, []string{"set cert_file and key_file"}},
		{"authority file gone", hub.Host, `ca_file = "/nowhere/ca.pem"`, []string{"ca_file", "/nowhere/ca.pem"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := m.launch(t, registryBlock(c.host, c.config)+"gc {\nimage_delay = \"0s\"\n}")
			task := n.task(imageTask("https://" + c.host + "/team/image:1"))
			if c.wants != nil {
				task.fails(false, c.wants...)
				return
			}
			task.runs("one")
			eventually(t, "the image is gone again", func() bool { return len(m.images(t)) == 0 })
		})
	}
}

func TestConformance_mirrors(t *testing.T) {
	m := newMachine(t)
	own := newHub(t, harness.RegistryOptions{}, says("1", "own"), says("2", "own"))
	empty := newHub(t, harness.RegistryOptions{})
	first := newHub(t, harness.RegistryOptions{}, says("1", "first"))
	second := newHub(t, harness.RegistryOptions{User: "me", Password: "pw"}, says("1", "second"), says("2", "second"))
	gone := newHub(t, harness.RegistryOptions{})
	gone.Stop()
	mirrors := func(hosts ...string) string { return fmt.Sprintf("mirrors = %s", encodeJSON(t, hosts)) }
	for _, c := range []struct {
		name, image, host, mirrors, more, want string
		retry                                  bool
	}{
		{"in order", "1", own.Host, mirrors(first.Host, second.Host), "", "first", false},
		{"one is away", "1", own.Host, mirrors(gone.Host, "http://"+first.Host), "", "first", false},
		{"one does not have it", "1", own.Host, mirrors(empty.Host, first.Host), "", "first", false},
		{"none has it", "2", own.Host, mirrors(gone.Host, empty.Host), "", "own", false},
		{"mirror wants a password", "2", own.Host, mirrors(second.Host), registryBlock(second.Host, "username = \"me\"\npassword = \"pw\""), "second", false},
		{"mirror refuses", "2", own.Host, mirrors(second.Host), "", "own", false},
		{"registry has no address", "1", "registry.invalid", mirrors(first.Host), "", "first", false},
		{"registry is away, mirror has none", "1", gone.Host, mirrors(empty.Host), "", "!(its mirror:", true},
		{"nobody has it", "3", own.Host, mirrors(empty.Host), "", "!image not found", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := m.launch(t, registryBlock(c.host, c.mirrors)+c.more+"gc {\nimage_delay = \"0s\"\n}")
			task := n.task(imageTask(c.host + "/team/image:" + c.image))
			if wanted, isError := strings.CutPrefix(c.want, "!"); isError {
				task.fails(c.retry, wanted, "registry "+c.host)
				return
			}
			task.runs(c.want)
			eventually(t, "the image is gone again", func() bool { return len(m.images(t)) == 0 })
		})
	}
}

// The task's password is nobody else's.
func TestConformance_Auth(t *testing.T) {
	const user, password = "worker", "pa55-of-the-test"
	m := newMachine(t)
	hub := newHub(t, harness.RegistryOptions{User: user, Password: password}, says("1", "one"))
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		must.NoError(t, os.WriteFile(path, []byte(content), mode))
		return path
	}
	file := write("config.json", fmt.Sprintf(`{"auths":{%q:{"username":%q,"password":%q}}}`, hub.Host, user, password), 0o600)
	withHelper := write("helper.json", fmt.Sprintf(`{"credHelpers":{%q:"pftest"}}`, hub.Host), 0o600)
	broken := write("broken.json", "{", 0o600)
	write("docker-credential-pftest", fmt.Sprintf("#!/bin/sh\n[ \"$1/$(cat)\" = get/%s ] || exit 3\necho '{\"Username\":\"%s\",\"Secret\":\"%s\"}'\n",
		hub.Host, user, password), 0o755)
	write("docker-credential-pfbroken", "#!/bin/sh\necho 'the vault is sealed' >&2\nexit 1\n", 0o755)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	auth := func(option, value string) string { return fmt.Sprintf("auth {\n%s = %q\n}\n", option, value) }
	for _, c := range []struct {
		name, plugin, task string
		wants              []string // of the error
	}{
		{"AuthFromTaskConfig", "", authBlock(user, password), nil},
		{"AuthFromTaskConfig/goes first", registryBlock(hub.Host, "username = \"x\"\npassword = \"x\""), authBlock(user, password), nil},
		{"AuthFromTaskConfig/wrong", auth("config", file), authBlock(user, "wrong-"+password), []string{
			"it refuses access", `the credentials of "worker" from the task's auth block`, "registry " + hub.Host}},
		{"AuthFromTaskConfig/for another registry", "", authBlock(user, password) + "\n", nil},
		{"registry block", registryBlock(hub.Host, fmt.Sprintf("username = %q\npassword = %q", user, password)) + auth("config", broken), "", nil},
		{"AuthConfiguration", auth("config", file), "", nil},
		{"AuthConfiguration/credHelpers", auth("config", withHelper), "", nil},
		{"AuthConfiguration/broken", auth("config", broken), "", []string{"auth.config " + broken, "auth_soft_fail"}},
		{"AuthConfiguration/missing", auth("config", "/nowhere/config.json"), "", []string{"auth.config /nowhere/config.json"}},
		{"authFromHelper", auth("helper", "pftest"), "", nil},
		{"authFromHelper/fails", auth("helper", "pfbroken"), "", []string{"docker-credential-pfbroken", "the vault is sealed"}},
		{"authFromHelper/missing", auth("helper", "pfnone"), "", []string{"docker-credential-pfnone"}},
		{"none", "", "", []string{"it refuses access", "without credentials", "set the task's auth"}},
		{"auth_soft_fail", auth("helper", "pfbroken"), "auth_soft_fail = true", []string{"it refuses access", "without credentials"}},
		{"auth_soft_fail/another source has them", fmt.Sprintf("auth {\nconfig = %q\nhelper = \"pftest\"\n}\n", broken), "auth_soft_fail = true", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := m.launch(t, c.plugin+"gc {\nimage_delay = \"0s\"\n}")
			task := n.task(imageTask(hub.Image("team/image:1"), c.task))
			if c.wants != nil {
				err := task.failure(false, c.wants...)
				must.StrNotContains(t, err.Error(), password)
				return
			}
			task.runs("one")
			eventually(t, "the image is gone again", func() bool { return len(m.images(t)) == 0 })
		})
	}
	t.Run("server_address of another", func(t *testing.T) {
		n := m.launch(t, "")
		n.task(imageTask(hub.Image("team/image:1"), fmt.Sprintf("auth {\nusername = %q\npassword = %q\nserver_address = \"other.example\"\n}", user, password))).
			fails(false, `auth.server_address "other.example"`)
	})
}

// A registry that gives tokens out for passwords, or for identity tokens, as the big ones do.
func TestConformance_Auth_tokens(t *testing.T) {
	m := newMachine(t)
	hub := newHub(t, harness.RegistryOptions{}, says("1", "one"))
	f := newFront(t, hub)
	f.with(func(w http.ResponseWriter, r *http.Request, registry http.Handler) {
		switch {
		case r.URL.Path == "/token":
			_ = r.ParseForm()
			isUser := r.PostForm.Get("grant_type") == "password" && r.PostForm.Get("username") == "me" && r.PostForm.Get("password") == "pw"
			isToken := r.PostForm.Get("grant_type") == "refresh_token" && r.PostForm.Get("refresh_token") == "identity"
			if !isUser && !isToken || r.PostForm.Get("scope") != "repository:team/image:pull" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			_, _ = io.WriteString(w, `{"access_token":"let-me-in"}`)
		case r.Header.Get("Authorization") != "Bearer let-me-in":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="hub",scope="repository:team/image:pull"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
		default:
			registry.ServeHTTP(w, r)
		}
	})
	file := filepath.Join(t.TempDir(), "config.json")
	must.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `{"auths":{%q:{"identitytoken":"identity"}}}`, f.Host), 0o600))
	n := m.launch(t, "gc {\nimage_delay = \"0s\"\n}")
	image := f.Host + "/team/image:1"
	n.task(imageTask(image)).fails(false, "it refuses access", "without credentials")
	n.task(imageTask(image, authBlock("me", "wrong"))).fails(false, "it refuses access", `"me" from the task's auth block`)
	n.task(imageTask(image, authBlock("me", "pw"))).runs("one")
	eventually(t, "the image is gone again", func() bool { return len(m.images(t)) == 0 })
	m.launch(t, fmt.Sprintf("auth {\nconfig = %q\n}", file)).task(imageTask(image)).runs("one")
}

func TestConformance_environmentRepository(t *testing.T) {
	m := newMachine(t)
	hub := newHub(t, harness.RegistryOptions{})
	layout := harness.BusyboxLayout(t, says("default:latest", "default of the registry"), says("team:3", "three"), says("team:4", "four"))
	hub.Push(layout, "default:latest", "pf/default", "latest")
	three := hub.Push(layout, "team:3", "pf/team", "3")
	hub.Push(layout, "team:4", "pf/team", "4")
	f := newFront(t, hub)
	repository := fmt.Sprintf("environment_repository = %q\n", f.Host+"/pf")

	n := m.launch(t, repository+"default_environment = \"team:4\"\n")
	n.task(`environment = "team:3"`).runs("three")
	n.task(fmt.Sprintf(`environment = "team@%s"`, three)).runs("three")
	n.task(fmt.Sprintf(`environment = "team:9@%s"`, three)).runs("three")
	n.task("").runs("four")
	asked := f.manifests.Load()
	n.task(`environment = "team:3"`).runs("three")
	n.task("environment = \"default\"\nargs = [\"echo of the folder\"]").runs("of the folder")
	test.Eq(t, asked, f.manifests.Load(), test.Sprint("what is here, or in the folder, is not asked for"))
	n.task("environment = \"team:3\"\nimage_pull_policy = \"always\"").runs("three")
	test.Greater(t, asked, f.manifests.Load())

	n.task("environment = \"team:5\"").fails(false, "image not found", "registry "+f.Host, "publish it to "+f.Host+"/pf or "+m.layout)
	n.task("environment = \"other:1\"\nimage_pull_policy = \"never\"").fails(false, "image_pull_policy is never")
	n.task(`environment = "team@sha256:12"`).fails(false, "is no digest")
	f.withStatus(http.StatusBadGateway)
	n.task("environment = \"team:5\"").fails(true, "it has trouble")
	f.with(nil)

	// Without a repository an environment of that digest is used, too, where it is.
	alone := m.launch(t, "")
	alone.task(fmt.Sprintf(`environment = "team@%s"`, three)).runs("three")
	alone.task("environment = \"team:5\"").fails(false, "publish it to "+m.layout)
}

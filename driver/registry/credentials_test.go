package registry

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

// secret is what must be nowhere but where it belongs.
const secret = "s3cr3t-of-the-test"

func dockerConfigFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	must.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// helper puts a credential helper on PATH: a real program that runs script.
func helper(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	must.NoError(t, os.WriteFile(filepath.Join(dir, helperPrefix+name), []byte("#!/bin/sh\n"+script), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// answer is a script that gives the credentials for one address and has none for others.
func answer(address, user string) string {
	return fmt.Sprintf(`read -r address
[ "$1" = get ] || exit 9
if [ "$address" = %q ]; then
	echo '{"ServerURL":"x","Username":"%s","Secret":"%s"}'
else
	echo "credentials not found in native keychain"
	exit 1
fi
`, address, user, secret)
}

func auths(entries map[string]string) string {
	var list []string
	for host, user := range entries {
		list = append(list, fmt.Sprintf(`%q:{"auth":%q}`, host, base64.StdEncoding.EncodeToString([]byte(user+":"+secret))))
	}
	return `{"auths":{` + strings.Join(list, ",") + `}}`
}

// The first source that has any credentials counts: AuthFromTaskConfig, the registry block, AuthConfiguration, authFromHelper.
func TestCredentials_precedence(t *testing.T) {
	helper(t, "all", answer("reg.example", "by-helper"))
	file := dockerConfigFile(t, auths(map[string]string{"reg.example": "by-file"}))
	block := map[string]Host{"reg.example": {Username: "by-block", Password: secret}}
	task := TaskAuth{Username: "by-task", Password: secret}
	for _, c := range []struct {
		name   string
		config Config
		task   TaskAuth
		want   string
	}{
		{"AuthFromTaskConfig", Config{Hosts: block, AuthFile: file, AuthHelper: "all"}, task, `the credentials of "by-task" from the task's auth block`},
		{"registry block", Config{Hosts: block, AuthFile: file, AuthHelper: "all"}, TaskAuth{}, `"by-block" from the plugin's registry "reg.example" block`},
		{"AuthConfiguration", Config{AuthFile: file, AuthHelper: "all"}, TaskAuth{}, `"by-file" from auth.config ` + file},
		{"authFromHelper", Config{AuthHelper: "all"}, TaskAuth{}, `"by-helper" from auth.helper docker-credential-all`},
		{"none", Config{}, TaskAuth{}, "no credentials"},
	} {
		t.Run(c.name, func(t *testing.T) {
			registries, err := New(c.config)
			must.NoError(t, err)
			source, err := registries.Credentials(c.task, "reg.example", func(err error) { t.Error(err) })
			must.NoError(t, err)
			found, err := source(t.Context(), "reg.example")
			must.NoError(t, err)
			test.StrContains(t, found.String(), c.want)
			test.Eq(t, c.name != "none", found.Secret == secret)
			for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
				test.StrNotContains(t, fmt.Sprintf(format, found), secret)
			}
		})
	}
}

func TestAuthFromTaskConfig_isForItsRegistryOnly(t *testing.T) {
	t.Parallel()
	registries, err := New(Config{})
	must.NoError(t, err)
	ask := func(task TaskAuth, image, host string) Credentials {
		t.Helper()
		source, err := registries.Credentials(task, image, nil)
		must.NoError(t, err)
		found, err := source(t.Context(), host)
		must.NoError(t, err)
		return found
	}
	mine := TaskAuth{Username: "me", Password: secret}
	test.True(t, ask(mine, "reg.example", "reg.example").Found())
	test.False(t, ask(mine, "reg.example", "mirror.example").Found(), test.Sprint("a mirror gets no task's password"))
	test.True(t, ask(mine, "docker.io", "registry-1.docker.io").Found())

	mine.ServerAddress = "https://index.docker.io/v1/"
	test.True(t, ask(mine, "docker.io", "registry-1.docker.io").Found())
	_, err = registries.Credentials(mine, "reg.example", nil)
	must.ErrorContains(t, err, "auth.server_address")
	test.StrNotContains(t, err.Error(), secret)
}

func TestAuthConfiguration(t *testing.T) {
	helper(t, "one", answer("helped.example", "from-helper"))
	helper(t, "store", answer(dockerHubKey, tokenUser))
	pair := base64.StdEncoding.EncodeToString([]byte("me:" + secret))
	for _, c := range []struct {
		name, file, host string
		want             Credentials
		err              string
	}{
		{"auth", `{"auths":{"reg.example":{"auth":"` + pair + `"}}}`, "reg.example", Credentials{Username: "me", Secret: secret}, ""},
		{"auth with a NUL", `{"auths":{"reg.example":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("me:"+secret+"\x00")) + `"}}}`,
			"reg.example", Credentials{Username: "me", Secret: secret}, ""},
		{"username and password", `{"auths":{"reg.example":{"username":"me","password":"` + secret + `"}}}`, "reg.example",
			Credentials{Username: "me", Secret: secret}, ""},
		{"identity token", `{"auths":{"reg.example":{"auth":"` + pair + `","identitytoken":"` + secret + `"}}}`, "reg.example",
			Credentials{Secret: secret}, ""},
		{"key is a URL", `{"auths":{"https://reg.example/v1/":{"auth":"` + pair + `"}}}`, "reg.example", Credentials{Username: "me", Secret: secret}, ""},
		{"key has a port", `{"auths":{"reg.example:5000":{"auth":"` + pair + `"}}}`, "reg.example:5000", Credentials{Username: "me", Secret: secret}, ""},
		{"another port", `{"auths":{"reg.example:5000":{"auth":"` + pair + `"}}}`, "reg.example", Credentials{}, ""},
		{"Docker Hub", `{"auths":{"` + dockerHubKey + `":{"auth":"` + pair + `"}}}`, "registry-1.docker.io", Credentials{Username: "me", Secret: secret}, ""},
		{"Docker Hub by its other name", `{"auths":{"docker.io":{"auth":"` + pair + `"}}}`, "docker.io", Credentials{Username: "me", Secret: secret}, ""},
		{"credHelpers", `{"credHelpers":{"helped.example":"one"}}`, "helped.example", Credentials{Username: "from-helper", Secret: secret}, ""},
		{"credHelpers of another", `{"credHelpers":{"helped.example":"one"}}`, "reg.example", Credentials{}, ""},
		{"credsStore", `{"auths":{"` + dockerHubKey + `":{}},"credsStore":"store"}`, "docker.io", Credentials{Secret: secret}, ""},
		{"credsStore has none", `{"credsStore":"store"}`, "reg.example", Credentials{}, ""},
		{"auths before helpers", `{"auths":{"helped.example":{"auth":"` + pair + `"}},"credHelpers":{"helped.example":"one"}}`, "helped.example",
			Credentials{Username: "me", Secret: secret}, ""},
		{"empty", `{}`, "reg.example", Credentials{}, ""},
		{"not JSON", `{"auths":{"reg.example":{"auth":"` + secret, "reg.example", Credentials{}, "bad JSON at byte"},
		{"wrong type", `{"auths":{"reg.example":{"password":12345678}}}`, "reg.example", Credentials{}, "password must be a string"},
		{"not base64", `{"auths":{"reg.example":{"auth":"` + secret + `!"}}}`, "reg.example", Credentials{}, "auth is not base64"},
		{"no colon", `{"auths":{"reg.example":{"auth":"` + base64.StdEncoding.EncodeToString([]byte(secret)) + `"}}}`, "reg.example",
			Credentials{}, "auth is not username:password"},
		{"no such helper", `{"credsStore":"nowhere"}`, "reg.example", Credentials{}, "docker-credential-nowhere"},
		{"too large", `{"auths":{"` + strings.Repeat("x", maxDockerConfig) + `":{}}}`, "reg.example", Credentials{}, "larger than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			registries, err := New(Config{AuthFile: dockerConfigFile(t, c.file)})
			must.NoError(t, err)
			source, err := registries.Credentials(TaskAuth{}, c.host, nil)
			must.NoError(t, err)
			found, err := source(t.Context(), c.host)
			if c.err != "" {
				must.ErrorContains(t, err, c.err)
				test.StrNotContains(t, err.Error(), secret)
				test.StrNotContains(t, err.Error(), "12345678")
				return
			}
			must.NoError(t, err)
			found.Source = ""
			test.Eq(t, c.want.Username+"/"+c.want.Secret, found.Username+"/"+found.Secret)
		})
	}
}

func TestAuthFromHelper(t *testing.T) {
	for _, c := range []struct {
		name, script, err string
		found             bool
	}{
		{"gives", answer("reg.example", "me"), "", true},
		{"has none", answer("other.example", "me"), "", false},
		{"gives nothing", `echo '{}'`, "", false},
		{"does not read", `echo '{"Username":"me","Secret":"` + secret + `"}'`, "", true},
		{"leaves a child behind", `sleep 1000 & echo '{"Username":"me","Secret":"` + secret + `"}'`, "", true},
		{"fails", `echo "the cloud is away
and more" >&2; echo ` + secret + `; exit 3`, "exit status 3: the cloud is away", false},
		{"talks", `echo "` + secret + `"`, "not the JSON of a credential helper", false},
		{"never stops talking", `yes ` + secret, "prints more than", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			helper(t, "x", c.script)
			ctx, cancel := context.WithTimeout(t.Context(), 10*helperGrace)
			defer cancel()
			found, err := askHelper(ctx, "x", "reg.example")
			if c.err != "" {
				must.ErrorContains(t, err, c.err)
				test.StrNotContains(t, err.Error(), secret)
				test.StrNotContains(t, err.Error(), "and more")
				return
			}
			must.NoError(t, err)
			test.Eq(t, c.found, found.Found())
		})
	}
}

func TestAuthFromHelper_isBoundedInTime(t *testing.T) {
	helper(t, "x", "sleep 1000 & sleep 1000")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := askHelper(ctx, "x", "reg.example")
	must.ErrorIs(t, err, context.Canceled)
	must.ErrorContains(t, err, "docker-credential-x does not answer")
}

func TestCredentials_softFail(t *testing.T) {
	helper(t, "x", answer("reg.example", "me"))
	broken := dockerConfigFile(t, "{")
	ask := func(config Config, soft bool) (Credentials, []error, error) {
		registries, err := New(config)
		must.NoError(t, err)
		var skipped []error
		source, err := registries.Credentials(TaskAuth{SoftFail: soft}, "reg.example", func(err error) { skipped = append(skipped, err) })
		must.NoError(t, err)
		found, err := source(t.Context(), "reg.example")
		return found, skipped, err
	}
	_, _, err := ask(Config{AuthFile: broken}, false)
	must.ErrorContains(t, err, "auth_soft_fail")
	_, _, err = ask(Config{AuthFile: filepath.Join(t.TempDir(), "none")}, false)
	must.ErrorContains(t, err, "no such file")

	found, skipped, err := ask(Config{AuthFile: broken}, true)
	must.NoError(t, err)
	test.False(t, found.Found())
	must.Len(t, 1, skipped)
	test.ErrorContains(t, skipped[0], broken)

	found, skipped, err = ask(Config{AuthFile: broken, AuthHelper: "x"}, true)
	must.NoError(t, err)
	test.Eq(t, "me", found.Username, test.Sprint("the next source is asked"))
	test.Len(t, 1, skipped)
}

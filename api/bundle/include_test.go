package bundle

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

// packWith packs a folder with options and returns its name, its files and what was warned of.
func packWith(t *testing.T, dir string, o Options) (string, map[string]string, []string, error) {
	t.Helper()
	var warnings []string
	o.Warn = func(text string) { warnings = append(warnings, text) }
	var out bytes.Buffer
	name, _, err := PackWith(t.Context(), dir, o, &out)
	if err != nil {
		return "", nil, warnings, err
	}
	unpacked := filepath.Join(t.TempDir(), "flow")
	must.NoError(t, Unpack(t.Context(), &out, unpacked, name, DefaultLimits))
	return name, contents(t, unpacked), warnings, nil
}

// project is a folder with a flow in flow/ and more beside it.
func project(t *testing.T) string {
	t.Helper()
	return folder(t, map[string]string{
		"flow/flow.dag.yaml": "nodes: []\n", "flow/helper.py": "own", "shared/util.py": "util", "shared/deep/more.py": "more", "shared/__pycache__/x.pyc": "no",
		"other/helper.py": "theirs", "data.zip": "a real archive", "packed/a.txt": "A", "packed/sub/b.txt": "B",
	})
}

func TestPackWith_mergesIncludesByTheirBaseName(t *testing.T) {
	t.Parallel()
	dir := project(t)
	absolute := filepath.Join(dir, "other", "helper.py")
	name, files, warnings, err := packWith(t, filepath.Join(dir, "flow"), Options{Includes: []string{"../shared", absolute, "../data.zip", "./helper.py"}})
	must.NoError(t, err)
	test.Eq(t, map[string]string{
		"flow.dag.yaml": "nodes: []\n", "helper.py": "own", "shared/util.py": "util", "shared/deep/more.py": "more", "data.zip": "a real archive",
	}, files)
	resolved, err := filepath.EvalSymlinks(dir)
	must.NoError(t, err)
	test.Eq(t, []string{
		fmt.Sprintf("Found duplicate file in additional includes, additional include file %s/other/helper.py will overwrite helper.py", resolved),
		fmt.Sprintf("Found duplicate file in additional includes, additional include file %s/flow/helper.py will overwrite helper.py", resolved),
	}, warnings)
	plain, err := Digest(t.Context(), filepath.Join(dir, "flow"))
	must.NoError(t, err)
	test.NotEq(t, plain, name)
}

func TestPackWith_zipsAFolderForAnArchiveThatIsNotThere(t *testing.T) {
	t.Parallel()
	dir := project(t)
	first, files, _, err := packWith(t, filepath.Join(dir, "flow"), Options{Includes: []string{"../packed.zip"}})
	must.NoError(t, err)
	data := []byte(files["packed.zip"])
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	must.NoError(t, err)
	var names []string
	for _, f := range archive.File {
		names = append(names, f.Name)
	}
	test.Eq(t, []string{"packed/", "packed/a.txt", "packed/sub/b.txt"}, names)
	second, _, _, err := packWith(t, filepath.Join(project(t), "flow"), Options{Includes: []string{"../packed.zip"}})
	must.NoError(t, err)
	test.Eq(t, first, second) // the same wherever it is made
}

func TestPackWith_refusesIncludes(t *testing.T) {
	t.Parallel()
	t.Run("that are not there", func(t *testing.T) {
		t.Parallel()
		for _, include := range []string{"../nowhere.py", "../nowhere.zip", "/no/such/file"} {
			_, _, _, err := packWith(t, filepath.Join(project(t), "flow"), Options{Includes: []string{include}})
			var missing *MissingIncludeError
			must.True(t, errors.As(err, &missing), must.Sprint(err))
			test.Eq(t, "Unable to find additional include "+include, missing.Error())
		}
	})
	t.Run("with links inside", func(t *testing.T) {
		t.Parallel()
		dir := project(t)
		must.NoError(t, os.Symlink("/etc/passwd", filepath.Join(dir, "shared", "link")))
		_, _, _, err := packWith(t, filepath.Join(dir, "flow"), Options{Includes: []string{"../shared"}})
		must.ErrorIs(t, err, ErrInvalid)
		test.ErrorContains(t, err, "link is a symbolic link")
	})
	t.Run("that make a file of a folder", func(t *testing.T) {
		t.Parallel()
		dir := project(t)
		must.NoError(t, os.WriteFile(filepath.Join(dir, "flow", "shared"), nil, 0o600))
		_, _, _, err := packWith(t, filepath.Join(dir, "flow"), Options{Includes: []string{"../shared"}})
		must.ErrorIs(t, err, ErrInvalid)
		test.ErrorContains(t, err, "shared is both a file and a folder")
	})
	t.Run("a pipe", func(t *testing.T) {
		t.Parallel()
		_, _, _, err := packWith(t, filepath.Join(project(t), "flow"), Options{Includes: []string{"/dev/null"}})
		test.ErrorContains(t, err, "/dev/null is a device")
	})
}

func TestPackWith_followsALinkToWhatIsIncluded(t *testing.T) {
	t.Parallel()
	dir := project(t)
	must.NoError(t, os.Symlink("shared", filepath.Join(dir, "alias")))
	_, files, _, err := packWith(t, filepath.Join(dir, "flow"), Options{Includes: []string{"../alias"}})
	must.NoError(t, err)
	test.Eq(t, "util", files["shared/util.py"]) // prompt flow names it by what the link points to
}

func TestPackWith_takesAFlowOfAnotherName(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"mine.yaml": "nodes: []\n"})
	_, _, _, err := packWith(t, dir, Options{})
	must.ErrorIs(t, err, ErrNoFlow)
	_, files, _, err := packWith(t, dir, Options{File: "mine.yaml"})
	must.NoError(t, err)
	test.MapLen(t, 1, files)
}

package environment

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
)

// imageRepository is where environments' images are named under on a machine's container engine. The domain exists nowhere, so
// that no engine ever looks for such an image on the internet.
const imageRepository = "promptflow.local/environment/"

var (
	// namePattern is the name part: what OCI allows as one path component of a repository's name.
	namePattern = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$`)
	// versionPattern is what OCI allows as a tag.
	versionPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
)

// maxName keeps the whole image reference well under the 255 characters that registries allow.
const maxName = 128

// Reference names an environment: by its version, or by the digest of one image, whatever its versions are by now.
type Reference struct {
	Name, Version string
	// Digest is empty unless the environment is pinned. Version is empty when only the digest was given.
	Digest digest.Digest
}

// Parse takes an environment's name as jobs and people write it, "default", "team-nlp:3", "team-nlp@sha256:…" or
// "team-nlp:3@sha256:…", apart. The version is "latest" when neither it nor a digest is given.
func Parse(ref string) (Reference, error) {
	name, pinned, isPinned := strings.Cut(ref, "@")
	name, version, hasVersion := strings.Cut(name, ":")
	if !hasVersion && !isPinned {
		version = "latest"
	}
	switch {
	case ref == "":
		return Reference{}, fmt.Errorf("parse environment name: it is empty: name one, for example \"default\" or \"team-nlp:3\"")
	case len(name) > maxName:
		return Reference{}, fmt.Errorf("parse environment name %q: the name is %d characters long, at most %d are allowed", ref, len(name), maxName)
	case !namePattern.MatchString(name):
		return Reference{}, fmt.Errorf("parse environment name %q: the name %q may only have lower case letters, digits, and single dots, underscores or dashes between them", ref, name)
	case (hasVersion || !isPinned) && !versionPattern.MatchString(version):
		return Reference{}, fmt.Errorf("parse environment name %q: the version %q may only have letters, digits, dots, underscores and dashes, at most 128, and begins with none of dot and dash", ref, version)
	}
	parsed := Reference{Name: name, Version: version}
	if isPinned {
		var err error
		if parsed.Digest, err = digest.Parse(pinned); err != nil {
			return Reference{}, fmt.Errorf("parse environment name %q: %q is no digest such as sha256:… with 64 digits: %w", ref, pinned, err)
		}
	}
	return parsed, nil
}

// InLayout is what the environment is called in a layout: "default:latest", or its digest.
func (r Reference) InLayout() string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.Name + ":" + r.Version
}

// In is the reference of the environment's image in a registry's repository: "registry.example/promptflow/team-nlp:3".
func (r Reference) In(repository string) string {
	return strings.TrimSuffix(repository, "/") + "/" + r.path()
}

// ImageName is the reference that stands for the environment on a container engine:
// "promptflow.local/environment/team-nlp:3".
func (r Reference) ImageName() string { return imageRepository + r.path() }

func (r Reference) path() string {
	if r.Digest != "" {
		return r.Name + "@" + r.Digest.String()
	}
	return r.Name + ":" + r.Version
}

// ImageName returns the image reference that stands for the environment ref on a container engine:
// "promptflow.local/environment/default:latest" for "default", "promptflow.local/environment/team-nlp:3" for "team-nlp:3".
func ImageName(ref string) (string, error) {
	parsed, err := Parse(ref)
	if err != nil {
		return "", err
	}
	return parsed.ImageName(), nil
}

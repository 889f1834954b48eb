package environment

import (
	"fmt"
	"regexp"
	"strings"
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

// ParseName takes an environment's name as jobs and people write it, "team-nlp:3" or "default", apart. The version is "latest"
// when none is given.
func ParseName(ref string) (name, version string, err error) {
	name, version, found := strings.Cut(ref, ":")
	if !found {
		version = "latest"
	}
	switch {
	case ref == "":
		return "", "", fmt.Errorf("parse environment name: it is empty: name one, for example \"default\" or \"team-nlp:3\"")
	case len(name) > maxName:
		return "", "", fmt.Errorf("parse environment name %q: the name is %d characters long, at most %d are allowed", ref, len(name), maxName)
	case !namePattern.MatchString(name):
		return "", "", fmt.Errorf("parse environment name %q: the name %q may only have lower case letters, digits, and single dots, underscores or dashes between them", ref, name)
	case !versionPattern.MatchString(version):
		return "", "", fmt.Errorf("parse environment name %q: the version %q may only have letters, digits, dots, underscores and dashes, at most 128, and begins with none of dot and dash", ref, version)
	}
	return name, version, nil
}

// Tag returns the tag that the environment ref has in a layout: "default:latest" for "default".
func Tag(ref string) (string, error) {
	name, version, err := ParseName(ref)
	if err != nil {
		return "", err
	}
	return name + ":" + version, nil
}

// ImageName returns the image reference that stands for the environment ref on a container engine:
// "promptflow.local/environment/default:latest" for "default", "promptflow.local/environment/team-nlp:3" for "team-nlp:3".
func ImageName(ref string) (string, error) {
	tag, err := Tag(ref)
	if err != nil {
		return "", err
	}
	return imageRepository + tag, nil
}

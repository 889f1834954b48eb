package environment

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// advices says what to do about what a failed program's output shows. The first that fits is given.
var advices = []struct {
	signs  []string
	advice string
}{
	{[]string{"No space left on device", "Disk quota exceeded"}, "the disk is full: make room and try again"},
	{[]string{"unshare failed: Operation not permitted", "unshare: cannot", "mount: permission denied", "must be superuser"},
		"mount namespaces are not allowed here: run this as root with CAP_SYS_ADMIN, in a container for example with --privileged"},
	{[]string{"DO NOT MATCH THE HASHES"},
		"the Python package index served other files than requirements.lock names: use another index (PIP_INDEX_URL) or make the lock file again"},
	{[]string{"The repository", "is not signed", "Release file", "is expired"},
		"the Debian mirror is not to be trusted or the clock is wrong: check both, or name another mirror"},
	{[]string{"Failed to fetch", "Unable to fetch some archives", "Some index files failed to download"},
		"Debian's packages cannot be fetched: check the network and http_proxy, or name another mirror"},
	{[]string{"CERTIFICATE_VERIFY_FAILED", "certificate verify failed"},
		"the Python package index has a certificate that this machine does not trust: name the authority's file in PIP_CERT"},
	{[]string{"Could not find a version", "No matching distribution", "Temporary failure in name resolution", "Max retries exceeded", "Connection refused", "timed out"},
		"Python packages cannot be fetched: check the network, https_proxy and PIP_INDEX_URL"},
}

// advise adds to a build's error what to do about it, where that is known.
func advise(err error, cache string) error {
	if errors.Is(err, syscall.ENOSPC) && !strings.Contains(err.Error(), "is full") {
		return fmt.Errorf("%w: the disk that holds %s or the image is full: make room and try again", err, cache)
	}
	var failed *commandError
	if !errors.As(err, &failed) {
		return err
	}
	output := strings.Join(failed.tail, "\n")
	for _, a := range advices {
		for _, sign := range a.signs {
			if strings.Contains(output, sign) {
				return fmt.Errorf("%w\n%s", err, a.advice)
			}
		}
	}
	return err
}

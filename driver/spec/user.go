package spec

import (
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// User is who the container's first process is.
type User struct {
	UID, GID   uint32
	Additional []uint32
}

// ParseUser reads user and more groups where they say everything themselves: nothing or root, or uid:gid in numbers, and
// groups in numbers. For anything else known is false, and the image's own passwd and group files must be asked.
func ParseUser(user string, groups []string) (parsed User, known bool) {
	if parsed, known = parseUser(user); !known {
		return User{}, false
	}
	for _, group := range groups {
		gid, err := strconv.ParseUint(group, 10, 32)
		if err != nil {
			return User{}, false
		}
		parsed.Additional = append(parsed.Additional, uint32(gid))
	}
	return parsed, true
}

func parseUser(user string) (parsed User, known bool) {
	if user == "" || user == "root" || user == "0" {
		return User{}, true
	}
	name, group, found := strings.Cut(user, ":")
	if !found {
		return User{}, false
	}
	uid, errUID := strconv.ParseUint(name, 10, 32)
	gid, errGID := strconv.ParseUint(group, 10, 32)
	if errUID != nil || errGID != nil {
		return User{}, false
	}
	return User{UID: uint32(uid), GID: uint32(gid)}, true
}

func (u User) spec() specs.User {
	return specs.User{UID: u.UID, GID: u.GID, AdditionalGids: u.Additional}
}

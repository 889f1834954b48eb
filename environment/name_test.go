package environment

import (
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func TestImageName(t *testing.T) {
	t.Parallel()
	tests := []struct {
		ref, want, err string
	}{
		{"default", "promptflow.local/environment/default:latest", ""},
		{"default:latest", "promptflow.local/environment/default:latest", ""},
		{"team-nlp:3", "promptflow.local/environment/team-nlp:3", ""},
		{"team.nlp_2--x:V1.0-rc_1", "promptflow.local/environment/team.nlp_2--x:V1.0-rc_1", ""},
		{"team-nlp@" + someDigest, "promptflow.local/environment/team-nlp@" + someDigest, ""},
		{"team-nlp:3@" + someDigest, "promptflow.local/environment/team-nlp@" + someDigest, ""},
		{"team-nlp@sha256:abc", "", `"sha256:abc" is no digest`},
		{"team-nlp@" + someDigest + ":3", "", "is no digest"},
		{"@" + someDigest, "", `the name "" may only have`},
		{"team-nlp:@" + someDigest, "", `the version "" may only have`},
		{"", "", "it is empty"},
		{":3", "", `the name "" may only have`},
		{"team:", "", `the version "" may only have`},
		{"Team", "", `the name "Team" may only have lower case letters`},
		{"team nlp", "", `the name "team nlp"`},
		{"team/nlp", "", `the name "team/nlp"`},
		{"../etc", "", `the name "../etc"`},
		{"-team", "", `the name "-team"`},
		{"team-", "", `the name "team-"`},
		{"team..nlp", "", `the name "team..nlp"`},
		{"büro", "", `the name "büro"`},
		{"team:1:2", "", `the version "1:2"`},
		{"team:.1", "", `the version ".1"`},
		{"team:1\n", "", `may only have letters`},
		{"team:" + strings.Repeat("1", 129), "", "at most 128"},
		{strings.Repeat("t", 129), "", "is 129 characters long, at most 128"},
	}
	for _, tc := range tests {
		t.Run(tc.ref, func(t *testing.T) {
			t.Parallel()
			got, err := ImageName(tc.ref)
			if tc.err != "" {
				must.ErrorContains(t, err, tc.err)
				return
			}
			must.NoError(t, err)
			test.Eq(t, tc.want, got)
		})
	}
}

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestReference_inOtherPlaces(t *testing.T) {
	t.Parallel()
	for ref, want := range map[string][2]string{
		"default":                  {"default:latest", "registry.example/pf/default:latest"},
		"team-nlp:3":               {"team-nlp:3", "registry.example/pf/team-nlp:3"},
		"team-nlp@" + someDigest:   {someDigest, "registry.example/pf/team-nlp@" + someDigest},
		"team-nlp:3@" + someDigest: {someDigest, "registry.example/pf/team-nlp@" + someDigest},
	} {
		parsed, err := Parse(ref)
		must.NoError(t, err)
		test.Eq(t, want[0], parsed.InLayout())
		test.Eq(t, want[1], parsed.In("registry.example/pf/"))
	}
}

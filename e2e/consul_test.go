package e2e

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
)

// consulService is a service with its health, as Consul tells it.
type consulService struct {
	Service struct {
		Address string
		Port    int
		Tags    []string
	}
	Checks []consulCheck
}

type consulCheck struct{ Name, Type, Status string }

func TestNomad_consul(t *testing.T) {
	harness.Integration(t)
	bin := harness.ConsulBinary(t)
	if bin == "" {
		t.Skip("no consul binary: make e2e-nomad builds it; or put one on PATH or name it with CONSUL_BIN")
	}
	consul := harness.StartConsul(t, bin)
	c := startCluster(t, fmt.Sprintf("consul {\n  address = %q\n}\n", consul.Address))
	registered := func() ([]consulService, error) {
		var services []consulService
		return services, consul.Get("/v1/health/service/web", &services)
	}

	t.Run("service registered and passing", func(t *testing.T) {
		c.run(t, "web", "provider=consul")
		services, err := registered()
		must.NoError(t, err)
		must.Len(t, 1, services)
		test.Eq(t, []string{"e2e"}, services[0].Service.Tags)
		for name, kind := range map[string]string{"answers": "http", "looks": "ttl"} {
			passing := slices.ContainsFunc(services[0].Checks, func(c consulCheck) bool {
				return c == consulCheck{Name: name, Type: kind, Status: "passing"}
			})
			test.True(t, passing, test.Sprintf("check %q of %+v", name, services[0].Checks))
		}
		body, err := served(fmt.Sprintf("http://%s:%d", services[0].Service.Address, services[0].Service.Port))
		must.NoError(t, err)
		test.Eq(t, "served by web", body)
	})
	t.Run("check fails with the task frozen", func(t *testing.T) {
		alloc := c.await(t, "web", "running").ID
		c.must(t, "alloc", "signal", "-s", "SIGSTOP", alloc)
		harness.Eventually(t, patience, "the check critical", func() error { return hasStatus(registered, "critical") })
		c.must(t, "alloc", "signal", "-s", "SIGCONT", alloc)
		harness.Eventually(t, patience, "the check passing again", func() error { return hasStatus(registered, "passing") })
	})
	t.Run("service deregistered at the stop", func(t *testing.T) {
		c.stop(t, "web")
		harness.Eventually(t, soon, "the service gone", func() error {
			services, err := registered()
			if err == nil && len(services) > 0 {
				err = errors.New("it is still registered")
			}
			return err
		})
	})
}

// hasStatus says whether the service's own check has the status.
func hasStatus(registered func() ([]consulService, error), status string) error {
	services, err := registered()
	if err != nil {
		return err
	}
	for _, service := range services {
		for _, check := range service.Checks {
			if check.Name == "answers" && check.Status == status {
				return nil
			}
		}
	}
	return fmt.Errorf("services: %+v", services)
}

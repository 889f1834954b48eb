package command

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

// destination is a runtime as the options of a command name it.
type destination struct {
	address, runtime, tokenFile string
	direct                      bool // the address is that of the runtime itself
}

// client is whom to ask, and which runtime to ask for.
func (d destination) client(ctx context.Context) (*api.Client, string, error) {
	token := ""
	if d.tokenFile != "" {
		data, err := os.ReadFile(d.tokenFile)
		if err != nil {
			return nil, "", fmt.Errorf("read token: %w", err)
		}
		token = strings.TrimSpace(string(data))
	}
	client, err := api.NewClient(d.address, token)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", errUsage, err)
	}
	if d.direct || d.runtime != "" {
		return client, d.runtime, nil
	}
	runtimes, err := client.Runtimes(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("ask for runtimes: %w; start one with '%s dev', or name a gateway with -address", err, Name)
	}
	if len(runtimes) != 1 {
		names := make([]string, len(runtimes))
		for i, r := range runtimes {
			names[i] = r.Name
		}
		return nil, "", fmt.Errorf("%w: the gateway has %d runtimes (%s); choose one with -runtime", errUsage, len(runtimes), strings.Join(names, ", "))
	}
	return client, runtimes[0].Name, nil
}

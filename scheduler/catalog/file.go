package catalog

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsimple"
)

// maxFile bounds a catalog's and a token's file, in bytes.
const maxFile = 16 << 20

// file is a catalog as it is written:
//
//	runtime "shared" {
//	  type = "shared"
//
//	  instance "a" {
//	    address     = "http://10.0.0.7:8080"
//	    concurrency = 32
//	    token_file  = "/etc/promptflow/token"
//	  }
//	}
type file struct {
	Runtimes []fileRuntime `hcl:"runtime,block"`
}

type fileRuntime struct {
	Name      string         `hcl:"name,label"`
	Type      string         `hcl:"type,optional"`
	Owner     string         `hcl:"owner,optional"`
	Instances []fileInstance `hcl:"instance,block"`
}

type fileInstance struct {
	ID          string `hcl:"id,label"`
	Address     string `hcl:"address"`
	Concurrency int    `hcl:"concurrency,optional"`
	TokenFile   string `hcl:"token_file,optional"`
}

// Load reads the runtimes of a catalog file in HCL, or in JSON where its name ends in .json. Tokens are read from the files that
// it names; relative paths are relative to the catalog's folder.
func Load(path string) ([]Runtime, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read catalog: %w", err)
	}
	name := filepath.Base(path)
	if filepath.Ext(name) != ".json" {
		name = strings.TrimSuffix(name, filepath.Ext(name)) + ".hcl" // the decoder goes by it
	}
	var f file
	if err := hclsimple.Decode(name, text, nil, &f); err != nil {
		return nil, fmt.Errorf("read catalog %s: %w", path, err)
	}
	runtimes := make([]Runtime, 0, len(f.Runtimes))
	for _, r := range f.Runtimes {
		runtime := Runtime{Name: r.Name, Type: r.Type, Owner: r.Owner}
		for _, in := range r.Instances {
			token, err := readToken(filepath.Dir(path), in.TokenFile)
			if err != nil {
				return nil, fmt.Errorf("read catalog %s: instance %q: %w", path, in.ID, err)
			}
			runtime.Instances = append(runtime.Instances, Instance{ID: in.ID, Address: in.Address, Concurrency: in.Concurrency, Token: token})
		}
		runtimes = append(runtimes, runtime)
	}
	return runtimes, nil
}

func readToken(dir, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	text, err := readFile(path)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("read token: %s is empty: write a token into it", path)
	}
	return token, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return text, nil
}

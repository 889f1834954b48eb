package gateway

import (
	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/scheduler/catalog"
	"github.com/nomad-promptflow/nomad-promptflow/scheduler/choose"
)

// pool is one runtime: its instances, the connections to them, and the choice among them.
type pool struct {
	runtime *catalog.Runtime
	lines   []*line // as runtime.Instances
	chooser *choose.Chooser
}

func newPool(runtime *catalog.Runtime) (*pool, error) {
	p := &pool{runtime: runtime}
	var room []int
	for _, instance := range runtime.Instances {
		l, err := newLine(instance)
		if err != nil {
			return nil, err
		}
		p.lines = append(p.lines, l)
		room = append(room, instance.Concurrency)
	}
	p.chooser = choose.New(room)
	return p, nil
}

func (p *pool) close() {
	for _, l := range p.lines {
		l.close()
	}
}

func (p *pool) describe() api.Runtime {
	r := api.Runtime{Name: p.runtime.Name, Type: p.runtime.Type, Owner: p.runtime.Owner, Instances: []api.Instance{}}
	for at, in := range p.runtime.Instances {
		r.Instances = append(r.Instances, api.Instance{ID: in.ID, Address: in.Address, Concurrency: in.Concurrency, InFlight: p.chooser.InFlight(at)})
	}
	return r
}

package state

import (
	"context"
	"sync"

	"firn/changelog"
)

// placing is who writes files of tables, in tree nodes that the hash of the key's types tells.
type placing struct {
	sync.Mutex
	tables map[changelog.TableID]*placers
}

type placers struct {
	n       int           // of them
	held    bool          // nobody begins: the key's types may change
	changed chan struct{} // closed when n or held does
}

// Place is called before files of a table are placed by the hash of its key: before the schema is looked at that the hash is of.
// done is called once the files are committed, or certainly never will be. It blocks while HoldPlacing's holder is at work. Error: ctx's.
func (r *Registry) Place(ctx context.Context, id changelog.TableID) (done func(), err error) {
	if err := r.placing.wait(ctx, id, func(p *placers) bool { return !p.held }, func(p *placers) { p.n++ }); err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { r.placing.change(id, func(p *placers) { p.n-- }) }), nil
}

// HoldPlacing returns when all who place files of the table are done, and until release is called nobody begins: what is in the lake
// then stays all there is. Error: ctx's.
func (r *Registry) HoldPlacing(ctx context.Context, id changelog.TableID) (release func(), err error) {
	if err := r.placing.wait(ctx, id, func(p *placers) bool { return !p.held }, func(p *placers) { p.held = true }); err != nil {
		return nil, err
	}
	release = sync.OnceFunc(func() { r.placing.change(id, func(p *placers) { p.held = false }) })
	if err := r.placing.wait(ctx, id, func(p *placers) bool { return p.n == 0 }, func(*placers) {}); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// wait does then as soon as ok.
func (x *placing) wait(ctx context.Context, id changelog.TableID, ok func(*placers) bool, then func(*placers)) error {
	for {
		x.Lock()
		p := x.of(id)
		if ok(p) {
			then(p)
			x.Unlock()
			return nil
		}
		changed := p.changed
		x.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (x *placing) change(id changelog.TableID, how func(*placers)) {
	x.Lock()
	defer x.Unlock()
	p := x.of(id)
	how(p)
	close(p.changed)
	p.changed = make(chan struct{})
}

func (x *placing) of(id changelog.TableID) *placers {
	if x.tables == nil {
		x.tables = map[changelog.TableID]*placers{}
	}
	p := x.tables[id]
	if p == nil {
		p = &placers{changed: make(chan struct{})}
		x.tables[id] = p
	}
	return p
}

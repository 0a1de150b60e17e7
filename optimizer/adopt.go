package optimizer

import "context"

// BuildIndex makes the position index of a table valid for its base store as it is now, which the first merge would do else. It does
// nothing where it is valid, or the table has no key. Errors: those of Once.
func (o *Optimizer) BuildIndex(ctx context.Context, name string) error {
	s := o.state(name)
	s.work.Lock()
	defer s.work.Unlock()
	l, err := o.look(ctx, s)
	if err != nil || !l.t.Keyed() {
		return err
	}
	return s.index(ctx, o, l)
}

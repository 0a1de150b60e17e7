package optimizer

import (
	"context"
	"fmt"
	"time"
)

// Orphans removes files of a table's stores (data, metadata, manifests) that are older than age and that nothing names: what a
// crash left between writing and commit. It returns their paths, sorted; a dry run only names them. age must be longer
// than any writer of the table takes from its first file to its commit.
func (o *Optimizer) Orphans(ctx context.Context, name string, age time.Duration, dryRun bool) ([]string, error) {
	s := o.state(name)
	s.work.Lock()
	defer s.work.Unlock()
	l, err := o.look(ctx, s)
	if err != nil {
		return nil, err
	}
	return o.removeOrphans(ctx, l, age, dryRun)
}

func (o *Optimizer) removeOrphans(ctx context.Context, l *lake, age time.Duration, dryRun bool) ([]string, error) {
	orphans, err := l.t.Orphans(ctx, o.options.Now().Add(-age))
	if err != nil {
		return nil, fmt.Errorf("orphans of %s: %w", l.t.Name(), err)
	}
	if dryRun || len(orphans) == 0 {
		return orphans, nil
	}
	for _, p := range orphans {
		if err := l.t.FS().Remove(p); err != nil {
			return nil, fmt.Errorf("orphans of %s: %w", l.t.Name(), err)
		}
	}
	o.metrics.expired.WithLabelValues("orphan").Add(float64(len(orphans)))
	o.log.Info("orphans removed", "table", l.t.Name(), "files", len(orphans), "first", orphans[0])
	return orphans, nil
}

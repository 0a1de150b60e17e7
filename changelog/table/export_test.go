package table

import "context"

// Unregister takes one Iceberg table, mixed or not, out of the catalog.
func (c *Catalog) Unregister(ctx context.Context, name string) error {
	id, err := parseIdent(name)
	if err != nil {
		return err
	}
	return c.backend.drop(ctx, id)
}

package table

import (
	"context"

	"firn/changelog"
)

// Unregister takes one Iceberg table, mixed or not, out of the catalog.
func (c *Catalog) Unregister(ctx context.Context, name string) error {
	id, err := parseIdent(name)
	if err != nil {
		return err
	}
	return c.backend.drop(ctx, id)
}

// AddSchema adds a schema to one store alone, as nobody should.
func AddSchema(ctx context.Context, s *Store, schema *changelog.Schema) error {
	return s.syncSchema(ctx, schema, plan{})
}

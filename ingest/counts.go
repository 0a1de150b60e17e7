package ingest

// Counts is what became of records. Read = Applied + Skipped + Parked + Replayed + Duplicate. A record that holds several changes counts
// as that many.
type Counts struct {
	Read      int64 `json:"read"`
	Applied   int64 `json:"applied"`   // a change of a table, or a truncate
	Skipped   int64 `json:"skipped"`   // nothing for a table: null values after deletes, heartbeats, transaction marks
	Parked    int64 `json:"parked"`    // kept aside, not applied
	Replayed  int64 `json:"replayed"`  // sent again by the connector, and dropped
	Duplicate int64 `json:"duplicate"` // given again by the broker, and dropped
}

func (c *Counts) add(o Counts) {
	c.Read += o.Read
	c.Applied += o.Applied
	c.Skipped += o.Skipped
	c.Parked += o.Parked
	c.Replayed += o.Replayed
	c.Duplicate += o.Duplicate
}

package changelog

// Bag folds changes of a table without a key. Its rows are told apart by nothing but their values, so the table is a bag:
// each Before takes out one row that is equal to it, each After puts one in, and a truncate takes out all. Where no equal
// row is there, a Before has no effect.
//
// A Bag does not know the rows of the state that the changes begin on: it keeps what was put in and is still there, and what
// is to be taken out of that state. Rows are bytes in an encoding that gives equal rows equal bytes. The zero Bag is empty.
type Bag struct {
	Truncated bool           // nothing of the state before is left
	Added     map[string]int // rows that were put in and not taken out again, and how many of each
	Taken     map[string]int // rows to take out of the state before, as far as it has them
}

// Add puts a row in.
func (b *Bag) Add(row []byte) {
	if b.Added == nil {
		b.Added = map[string]int{}
	}
	b.Added[string(row)]++
}

// Take takes one row out that is equal to row.
func (b *Bag) Take(row []byte) {
	switch n := b.Added[string(row)]; {
	case n > 1:
		b.Added[string(row)] = n - 1
	case n == 1:
		delete(b.Added, string(row))
	case !b.Truncated:
		if b.Taken == nil {
			b.Taken = map[string]int{}
		}
		b.Taken[string(row)]++
	}
}

// Truncate takes all rows out.
func (b *Bag) Truncate() { *b = Bag{Truncated: true} }

// Keeps reports whether a row of the state before is still there. It is to be asked once for each of them.
func (b *Bag) Keeps(row []byte) bool {
	if b.Truncated {
		return false
	}
	n := b.Taken[string(row)]
	if n > 0 {
		b.Taken[string(row)] = n - 1
	}
	return n == 0
}

package table

import (
	"fmt"

	"firn/changelog/mixed"
)

// SequenceForm says where the commits of a table publish its optimized sequences. Both places are read in any case: statistics
// where an ancestor of the base store's current snapshot is marked, else the property (spec/mixed-format.md 5.1, 5.2).
type SequenceForm string

// The forms.
const (
	// SequenceAuto is the property, unless an ancestor of the current snapshot is marked: then statistics. Default.
	SequenceAuto SequenceForm = "auto"
	// SequenceProperty is the property. Where an ancestor is marked commits are refused, because readers would not look at it.
	SequenceProperty SequenceForm = "property"
	// SequencePuffin is Puffin statistics and marks, as Amoro has them, from the next commit on. There is no way back but to roll the
	// base store back to before the first mark. PyIceberg cannot load such tables.
	SequencePuffin SequenceForm = "puffin"
)

// PropSequence is the property of a base store that holds its SequenceForm. Written to tables.
const PropSequence = "firn.optimized-sequence"

// ParseSequenceForm returns the form of a name. Error: ErrUnsupported.
func ParseSequenceForm(name string) (SequenceForm, error) {
	switch f := SequenceForm(name); f {
	case SequenceAuto, SequenceProperty, SequencePuffin:
		return f, nil
	}
	return "", fmt.Errorf("optimized sequence %q is not auto, property or puffin: %w", name, ErrUnsupported)
}

// InPuffin reports whether the table's optimized sequences are in Puffin statistics: whether an ancestor of the base store's
// current snapshot is marked.
func (t *Table) InPuffin() bool { return t.puffin }

// CheckSequence reports a form in which the table's commits cannot publish: ErrUnsupported, SequenceProperty where an ancestor is
// marked.
func (t *Table) CheckSequence(f SequenceForm) error {
	if f != SequenceProperty || !t.puffin {
		return nil
	}
	return fmt.Errorf("%s: its optimized sequences are in Puffin statistics (base snapshot %d is marked %s), and while a marked ancestor is there "+
		"no reader takes them from the property: set %s to auto or puffin: %w",
		t.Name(), markedSnapshot(t.base.loaded.metadata, mixed.MarkOptimizedSequence).SnapshotID, mixed.MarkOptimizedSequence, PropSequence, ErrUnsupported)
}

// sequenceForm returns the form that a commit asks for; "": the one in the base store's property.
func (s *Store) sequenceForm(asked SequenceForm) (SequenceForm, error) {
	if asked != "" {
		return asked, nil
	}
	if v := s.loaded.metadata.Properties()[PropSequence]; v != "" {
		f, err := ParseSequenceForm(v)
		if err != nil {
			return "", fmt.Errorf("%s: property %s: %w", s.id, PropSequence, err)
		}
		return f, nil
	}
	return SequenceAuto, nil
}

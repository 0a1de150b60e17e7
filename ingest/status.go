package ingest

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"
)

// SourceState is what a source does.
type SourceState string

// The states.
const (
	SourceStarting    SourceState = "starting" // nothing is assigned yet
	SourceRunning     SourceState = "running"
	SourceWaiting     SourceState = "waiting" // a partition does not go on for now, and says why: there is no space, say
	SourcePaused      SourceState = "paused"
	SourceUnreachable SourceState = "unreachable"
	SourceFinished    SourceState = "finished" // all its data is taken in, and there will be no more
	SourceFailed      SourceState = "failed"   // a partition has stopped, or the source
)

// SourceStatus is how a source stands.
type SourceStatus struct {
	Name       string            `json:"name"`
	State      SourceState       `json:"state"`
	Error      string            `json:"error,omitempty"`
	Counts     Counts            `json:"counts"`
	Partitions []PartitionStatus `json:"partitions"`
}

// PartitionStatus is how a partition stands. Offsets are Unknown (-1) where they are not known.
type PartitionStatus struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Table     string `json:"table"`
	Assigned  bool   `json:"assigned"` // to this process
	Next      int64  `json:"next"`     // all before is durable
	Oldest    int64  `json:"oldest"`
	End       int64  `json:"end"`
	Lag       int64  `json:"lag"`
	Waiting   string `json:"waiting,omitempty"` // why the partition does not go on
	Error     string `json:"error,omitempty"`   // why it has stopped
	Counts    Counts `json:"counts"`            // since this process began
}

// partitionState is what a status knows of a partition. Workers write it once a batch.
type partitionState struct {
	mu struct {
		sync.Mutex
		PartitionStatus

		registryDown time.Time // since when the partition waits for the registry; zero: it does not
		shown        seenTopic
	}
}

func newPartitionState(p Partition, table string) *partitionState {
	s := &partitionState{}
	s.mu.PartitionStatus = PartitionStatus{
		Topic: p.Topic, Partition: p.Index, Table: table, Next: Unknown, Oldest: Unknown, End: Unknown,
	}
	return s
}

func (s *partitionState) update(change func(*PartitionStatus)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.mu.PartitionStatus)
	if s.mu.Next != Unknown && s.mu.End != Unknown {
		s.mu.Lag = max(0, s.mu.End-s.mu.Next)
	}
}

func (s *partitionState) get() PartitionStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.PartitionStatus
}

// Status returns how each source stands, in the order they were given.
func (p *Pipeline) Status() []SourceStatus {
	all := make([]SourceStatus, 0, len(p.runners))
	for _, r := range p.runners {
		all = append(all, r.status())
	}
	return all
}

// Unready returns why the pipeline is not ready: a line for each source that does not read all that it should. A paused
// or waiting source is none, but for one that has waited a minute for its schema registry.
func (p *Pipeline) Unready() []string {
	var reasons []string
	for _, r := range p.runners {
		s := r.status()
		switch s.State {
		case SourceRunning, SourceWaiting:
			if why := r.registryDown(p.opts.Now()); why != "" {
				reasons = append(reasons, "source "+s.Name+": "+why)
			}
		case SourcePaused, SourceFinished:
		case SourceStarting:
			reasons = append(reasons, "source "+s.Name+": no partition is assigned yet")
		case SourceUnreachable, SourceFailed:
			reasons = append(reasons, "source "+s.Name+": "+s.Error)
		}
	}
	return reasons
}

func (r *runner) status() SourceStatus {
	r.mu.Lock()
	st := SourceStatus{Name: r.source.Name(), State: SourceStarting, Partitions: []PartitionStatus{}}
	states := make([]*partitionState, 0, len(r.mu.partitions))
	for _, s := range r.mu.partitions {
		states = append(states, s)
	}
	reached, unreachable, finished, paused, failed := r.mu.reached, r.mu.unreachable, r.mu.finished, r.mu.paused, r.mu.failed
	r.mu.Unlock()

	assigned, waiting, stopped := false, false, ""
	for _, s := range states {
		ps := s.get()
		st.Partitions = append(st.Partitions, ps)
		st.Counts.add(ps.Counts)
		assigned, waiting = assigned || ps.Assigned, waiting || ps.Waiting != ""
		if ps.Error != "" && (stopped == "" || ps.Error < stopped) {
			stopped = ps.Error
		}
	}
	slices.SortFunc(st.Partitions, func(a, b PartitionStatus) int {
		return comparePartitions(Partition{a.Topic, a.Partition}, Partition{b.Topic, b.Partition})
	})
	switch {
	case failed != "":
		st.State, st.Error = SourceFailed, failed
	case paused:
		st.State = SourcePaused
	case stopped != "":
		st.State, st.Error = SourceFailed, stopped
	case finished:
		st.State = SourceFinished
	case unreachable != "":
		st.State, st.Error = SourceUnreachable, unreachable
	case waiting:
		st.State = SourceWaiting
	case assigned || reached && len(states) == 0: // a source without topics waits for them
		st.State = SourceRunning
	}
	return st
}

func comparePartitions(a, b Partition) int {
	return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Index, b.Index))
}

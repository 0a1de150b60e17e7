package ingest

import (
	"context"
	"math"
	"sync"
	"time"
)

// topic is where the readers of one topic's partitions wait for each other, in two cases.
//
// A new key schema (spec/debezium.md 1.2): the producer hashes key bytes, which hold the key's schema, so a row may go
// on in another partition. The first reader that meets an unknown key schema begins a barrier: the end of every
// partition is asked for, each reader stops at its first record with an unknown key schema or at that end, and when
// all have stopped the oldest of the unknown schemas (by record time) becomes known and they go on. It is the same at
// the start, when no key schema is known yet.
//
// A row that took another key (2.7): the delete of the old key, which keeps the row's last values, may be in another
// partition.
type topic struct {
	name   string
	bounds func(ctx context.Context, topic string) ([]Bounds, error)

	mu struct {
		sync.Mutex
		members map[int32]*member
		known   map[string]bool // key schemas
		barrier *barrier
		waiting int           // goroutines that wait for changed
		changed chan struct{} // closed at the next change of any of this
	}
}

// member is one partition of a topic that is assigned to this process.
type member struct {
	topic    *topic
	index    int32
	joined   bool
	deadline time.Time // until when an assigned partition is waited for that does not join
	next     int64     // all before is submitted; Unknown before the first batch

	gone    bool // interrupted
	stopped bool // at a barrier's limit
	held    bool // before a record with the key schema pending
	schema  string
	time    int64 // of that record, ms
}

type barrier struct {
	ends       map[int32]int64 // where the members' partitions ended when the barrier began
	collecting bool            // somebody asks for the ends
}

// joinWait is how long a partition that is assigned, but never read, holds up a barrier.
const joinWait = 10 * time.Second

func newTopic(name string, bounds func(context.Context, string) ([]Bounds, error)) *topic {
	t := &topic{name: name, bounds: bounds}
	t.mu.members = make(map[int32]*member)
	t.mu.known = make(map[string]bool)
	t.mu.changed = make(chan struct{})
	return t
}

// expect says that a partition is assigned and will join: barriers wait for it.
func (t *topic) expect(index int32, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.members[index] == nil {
		t.mu.members[index] = &member{topic: t, index: index, next: Unknown, deadline: now.Add(joinWait)}
	}
}

func (t *topic) join(index int32, next int64) *member {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := &member{topic: t, index: index, next: next, joined: true}
	t.mu.members[index] = m
	t.changedLocked()
	return m
}

// leave takes m out. interrupted tells that there was more to read here, which will be read later or elsewhere: barriers
// do not wait for that, but who needs a record of it does not yet give up.
func (m *member) leave(interrupted bool) {
	m.topic.mu.Lock()
	defer m.topic.mu.Unlock()
	m.gone, m.held, m.stopped = true, false, false
	if m.topic.mu.members[m.index] == m && !interrupted {
		delete(m.topic.mu.members, m.index)
	}
	m.topic.changedLocked()
}

// progress says that all before next is submitted.
func (m *member) progress(next int64) {
	m.topic.mu.Lock()
	defer m.topic.mu.Unlock()
	m.next = next
	m.topic.changedLocked()
}

// learn makes a key schema known that was applied before this process began.
func (t *topic) learn(schema []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.mu.known[string(schema)] {
		t.mu.known[string(schema)] = true
		t.freeLocked()
		t.changedLocked()
	}
}

// knows reports whether records with the key schema may pass.
func (t *topic) knows(schema []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.known[string(schema)]
}

// changedLocked looks whether a barrier can end, and wakes those who wait.
func (t *topic) changedLocked() {
	t.releaseLocked()
	if t.mu.waiting > 0 {
		close(t.mu.changed)
		t.mu.changed = make(chan struct{})
	}
}

// wait blocks until something has changed, the time is over, or ctx ends. The lock is held on entry and on return.
func (t *topic) waitLocked(ctx context.Context, timeout <-chan time.Time) error {
	changed := t.mu.changed
	t.mu.waiting++
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		t.mu.waiting--
	}()
	select {
	case <-changed:
	case <-timeout:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// limit returns the offset before which records may be taken in, as a barrier sets it. It blocks while the barrier does
// not know it yet, and at the limit until the barrier ends.
func (m *member) limit(ctx context.Context, next int64) (int64, error) {
	t := m.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	if next > m.next {
		m.next = next
		t.changedLocked()
	}
	defer func() { m.stopped = false }()
	for t.mu.barrier != nil {
		end, ok := t.mu.barrier.ends[m.index]
		if ok && next < end {
			return end, nil
		}
		if ok && !m.stopped {
			m.stopped = true
			t.changedLocked()
			continue
		}
		if err := t.waitLocked(ctx, nil); err != nil {
			return 0, err
		}
	}
	return math.MaxInt64, nil
}

// hold blocks before a record with a key schema that is not known, until it is. All records before it have been
// submitted.
func (m *member) hold(ctx context.Context, next int64, schema []byte, at int64) error {
	t := m.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	m.next, m.held, m.schema, m.time = next, true, string(schema), at
	defer t.endLocked(m)
	if t.mu.barrier == nil {
		t.mu.barrier = &barrier{}
	}
	t.changedLocked()
	for !t.mu.known[m.schema] {
		b := t.mu.barrier
		if b == nil { // ended for another schema
			t.mu.barrier = &barrier{}
			t.changedLocked()
			continue
		}
		if !b.collecting && !t.completeLocked(b) {
			if err := t.collectLocked(ctx, b); err != nil {
				return err
			}
			continue
		}
		timer := time.NewTimer(time.Second) // a member that never joins is given up by time
		err := t.waitLocked(ctx, timer.C)
		timer.Stop()
		if err != nil {
			return err
		}
		t.changedLocked()
	}
	return nil
}

// endLocked takes m, which waits no more, out of the barrier; the last one ends it.
func (t *topic) endLocked(m *member) {
	m.held = false
	for _, o := range t.mu.members {
		if o.held {
			t.changedLocked()
			return
		}
	}
	t.mu.barrier = nil
	t.freeLocked()
	t.changedLocked()
}

// freeLocked says of those who waited for what is no more that they go on, whenever their goroutines do.
func (t *topic) freeLocked() {
	for _, m := range t.mu.members {
		m.held = m.held && !t.mu.known[m.schema]
		m.stopped = m.stopped && t.mu.barrier != nil
	}
}

func (t *topic) completeLocked(b *barrier) bool {
	for index, m := range t.mu.members {
		if _, ok := b.ends[index]; !ok && !m.gone {
			return false
		}
	}
	return true
}

// collectLocked asks for the ends of the partitions that b does not know. It gives up the lock while it asks.
func (t *topic) collectLocked(ctx context.Context, b *barrier) error {
	b.collecting = true
	t.mu.Unlock()
	ends, err := t.ends(ctx)
	t.mu.Lock()
	b.collecting = false
	if err != nil {
		return err
	}
	all := make(map[int32]int64, len(t.mu.members))
	for index, m := range t.mu.members {
		end, ok := b.ends[index]
		if !ok {
			end, ok = ends[index]
		}
		if !ok { // the partition is gone: nothing to wait for
			end = m.next
		}
		all[index] = end
	}
	b.ends = all
	t.changedLocked()
	return nil
}

// ends asks for the ends of the topic's partitions until it gets an answer.
func (t *topic) ends(ctx context.Context) (map[int32]int64, error) {
	for delay := 50 * time.Millisecond; ; delay = min(2*delay, 5*time.Second) {
		bounds, err := t.bounds(ctx, t.name)
		if err == nil {
			ends := make(map[int32]int64, len(bounds))
			for _, b := range bounds {
				ends[b.Index] = b.End
			}
			return ends, nil
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// releaseLocked ends the barrier if every member has stopped.
func (t *topic) releaseLocked() {
	b := t.mu.barrier
	if b == nil {
		return
	}
	var oldest *member
	for index, m := range t.mu.members {
		if m.gone || !m.joined && time.Now().After(m.deadline) {
			continue
		}
		end, ok := b.ends[index]
		if !ok || !m.held && m.next < end {
			return
		}
		if m.held && !t.mu.known[m.schema] && (oldest == nil || m.time < oldest.time || m.time == oldest.time && m.index < oldest.index) {
			oldest = m
		}
	}
	t.mu.barrier = nil
	if oldest != nil {
		t.mu.known[oldest.schema] = true
	}
	t.freeLocked()
}

// alone reports whether no other partition of the topic is read here.
func (m *member) alone() bool {
	m.topic.mu.Lock()
	defer m.topic.mu.Unlock()
	return len(m.topic.mu.members) <= 1
}

// others waits until found says yes, until the other members have submitted all that their partitions held when
// it was called (or stand at a barrier, which waits for the caller), or for the given time.
func (m *member) others(ctx context.Context, wait time.Duration, found func() (bool, error)) error {
	t := m.topic
	if ok, err := found(); ok || err != nil {
		return err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	bounded, cancel := context.WithTimeout(ctx, wait)
	ends, err := t.ends(bounded)
	cancel()
	if err != nil {
		return context.Cause(ctx) // nil if only the time is over
	}
	for over := false; ; {
		// What comes after this is noticed, though found is asked without the lock.
		t.mu.Lock()
		t.mu.waiting++
		changed, behind := t.mu.changed, t.behindLocked(m, ends)
		t.mu.Unlock()
		ok, err := found()
		if !ok && err == nil && behind && !over {
			select {
			case <-changed:
			case <-timer.C:
				over = true
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		}
		t.mu.Lock()
		t.mu.waiting--
		t.mu.Unlock()
		if ok || err != nil || !behind || over {
			return err
		}
	}
}

func (t *topic) behindLocked(self *member, ends map[int32]int64) bool {
	for index, m := range t.mu.members {
		if m != self && !m.held && !m.stopped && m.next < ends[index] {
			return true
		}
	}
	return false
}

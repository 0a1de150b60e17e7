package logstore

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"firn/changelog"
)

// natives is the highest database position of a table for each track: a kind and, for GTIDs, the domain or server that
// counts. It is kept in memory, from the log's last block on.
type natives map[string]native

// native is a position that compares within its track.
type native struct {
	high, low uint64
	text      string // as given
}

// note takes in a change's native position.
func (n *natives) note(text string) {
	if text == "" {
		return
	}
	track, p, ok := parseNative(text)
	if !ok {
		return
	}
	if *n == nil {
		*n = natives{}
	}
	if old, ok := (*n)[track]; !ok || old.less(p) {
		p.text = strings.Clone(p.text) // the block it comes from is not to be held for it
		(*n)[strings.Clone(track)] = p
	}
}

func (p native) less(q native) bool { return p.high < q.high || p.high == q.high && p.low < q.low }

// parseNative understands:
//
//	lsn:16/B374D848           Postgres: two hexadecimal halves; SQL Server: three parts with colons
//	lsn:24023128              the same as one decimal number
//	binlog:mysql-bin.000003/157   MySQL, MariaDB: the file's number, then the offset
//	gtid:0-1-42               MariaDB: each domain is a track
//	gtid:3e11fa47-…:23        MySQL: each server is a track
//	scn:123                   Oracle
func parseNative(text string) (track string, p native, ok bool) {
	kind, rest, ok := strings.Cut(text, ":")
	if !ok {
		return "", native{}, false
	}
	p.text = text
	switch kind {
	case "lsn":
		ok = p.parseLSN(rest)
	case "binlog":
		file, offset, found := strings.Cut(rest, "/")
		dot := strings.LastIndexByte(file, '.')
		ok = found && number(file[dot+1:], 10, &p.high) && number(offset, 10, &p.low)
	case "gtid":
		if server, n, mysql := strings.Cut(rest, ":"); mysql {
			n = n[strings.LastIndexByte(n, '-')+1:] // of an interval, its end
			return kind + ":" + server, p, number(n, 10, &p.high)
		}
		domain, _, found := strings.Cut(rest, "-")
		return kind + ":" + domain, p, found && number(rest[strings.LastIndexByte(rest, '-')+1:], 10, &p.high)
	default:
		ok = number(rest, 10, &p.high)
	}
	return kind, p, ok
}

func (p *native) parseLSN(s string) bool {
	if high, low, pg := strings.Cut(s, "/"); pg {
		return number(high, 16, &p.high) && number(low, 16, &p.low)
	}
	parts := strings.Split(s, ":")
	if len(parts) == 3 { // SQL Server: file, block, slot
		var block, slot uint64
		ok := number(parts[0], 16, &p.high) && number(parts[1], 16, &block) && number(parts[2], 16, &slot)
		p.low = block<<16 | slot&0xffff
		return ok
	}
	var n uint64
	ok := len(parts) == 1 && number(s, 10, &n)
	p.high, p.low = n>>32, n&0xffffffff // as Postgres prints it
	return ok
}

func number(s string, base int, to *uint64) bool {
	n, err := strconv.ParseUint(s, base, 64)
	*to = n
	return err == nil
}

// Natives returns the highest database position that is synced in a table for each kind ("lsn", "binlog") and, where a
// domain or server counts for itself, each of these ("gtid:0"). Best effort: it is as old as the log's last block after
// a restart, and with several partitions the highest position of one says nothing of the others.
func (s *Store) Natives(id changelog.TableID) (map[string]string, error) {
	t, err := s.table(id)
	if err != nil {
		return nil, fmt.Errorf("positions of table %d: %w", id, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[string]string, len(t.mu.natives))
	for track, p := range maps.All(t.mu.natives) {
		out[track] = p.text
	}
	return out, nil
}

// WaitNative blocks until a table has synced a change at or after a database position, which is written as
// changelog.Position.Native. Errors: ErrUnknown, the table has seen no position of its kind, or it is none;
// state.ErrNotFound; ctx's; ErrClosed.
func (s *Store) WaitNative(ctx context.Context, id changelog.TableID, position string) error {
	t, err := s.table(id)
	if err != nil {
		return fmt.Errorf("wait for %s in table %d: %w", position, id, err)
	}
	track, want, ok := parseNative(position)
	if !ok {
		return fmt.Errorf("wait for %q in table %d: %w", position, id, ErrUnknown)
	}
	unknown := false
	err = s.waitTable(ctx, t, func() bool {
		have, ok := t.mu.natives[track]
		unknown = !ok
		return unknown || !have.less(want)
	})
	if err == nil && unknown {
		return fmt.Errorf("wait for %s in table %d: %w", position, id, ErrUnknown)
	}
	return err
}

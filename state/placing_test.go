package state

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"firn/changelog"
)

// TestPlacing: who holds placing waits for all who place, of its table only; who begins waits for the holder.
func TestPlacing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Registry{}
		one, other := mustPlace(t, r, 1), mustPlace(t, r, 1)
		mustPlace(t, r, 2)
		held, placed := make(chan func()), make(chan func())
		go func() {
			release, err := r.HoldPlacing(t.Context(), 1)
			if err != nil {
				t.Error(err)
			}
			held <- release
		}()
		one()
		one() // once is enough
		synctest.Wait()
		select {
		case <-held:
			t.Fatal("held beside one who places")
		default:
		}
		go func() { placed <- mustPlace(t, r, 1) }()
		ctx, cancel := context.WithCancel(t.Context())
		given := make(chan error)
		go func() {
			_, err := r.HoldPlacing(ctx, 1)
			given <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-given; !errors.Is(err, context.Canceled) {
			t.Errorf("given up: %v", err)
		}
		other()
		release := <-held
		synctest.Wait()
		select {
		case <-placed:
			t.Fatal("placed beside a holder")
		default:
		}
		release()
		last := <-placed
		// A holder that gives up lets the others go on.
		ctx, cancel = context.WithCancel(t.Context())
		go func() {
			_, err := r.HoldPlacing(ctx, 1)
			given <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-given; !errors.Is(err, context.Canceled) {
			t.Errorf("given up: %v", err)
		}
		mustPlace(t, r, 1)()
		last()
	})
}

func mustPlace(t *testing.T, r *Registry, id changelog.TableID) func() {
	t.Helper()
	done, err := r.Place(t.Context(), id)
	if err != nil {
		t.Error(err)
	}
	return done
}

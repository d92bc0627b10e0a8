package channellayer

import (
	"context"
	"sync"
	"time"
)

// call is an async call that C knows by its token.
type call struct {
	op, name string
	place    bool // it holds one of the places of max_in_flight

	// One of these gets the outcome. None: nobody waits any more.
	result chan error
	done   func(error)
	wake   *receiver
}

// calls holds the calls under way. A token is a slot and how often the slot was given: what comes
// late for an old one meets nobody.
type calls struct {
	mu      sync.Mutex
	slots   []slot
	free    []uint32
	ended   bool
	places  int
	most    int
	waiting []chan struct{} // for a place, first come, first served

	// Of the pump. They say what is still to be finished, should one that is finished end the goroutine.
	resolved []resolved
	finished int    // how many of those in resolved
	left     []call // that end with the layer
}

type slot struct {
	call
	given uint32
	used  bool
}

type resolved struct {
	call
	err error
	ok  bool
}

func (c *calls) add(call call) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.addLocked(call)
}

func (c *calls) addLocked(call call) uint64 {
	var index uint32
	if last := len(c.free) - 1; last >= 0 {
		index = c.free[last]
		c.free = c.free[:last]
	} else {
		index = uint32(len(c.slots))
		c.slots = append(c.slots, slot{})
	}
	s := &c.slots[index]
	s.call, s.used = call, true
	s.given++
	if call.place {
		c.places++
	}
	return uint64(s.given)<<32 | uint64(index)
}

func (c *calls) find(token uint64) *slot {
	index := uint32(token)
	if int(index) >= len(c.slots) {
		return nil
	}
	s := &c.slots[index]
	if !s.used || s.given != uint32(token>>32) {
		return nil
	}
	return s
}

func (c *calls) takeLocked(token uint64) (call, bool) {
	s := c.find(token)
	if s == nil {
		return call{}, false
	}
	taken := s.call
	s.call, s.used = call{}, false
	c.free = append(c.free, uint32(token))
	if taken.place {
		c.leaveLocked()
	}
	return taken, true
}

// drop ends a call that C did not take. It says whether the call was still there.
func (c *calls) drop(token uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, there := c.takeLocked(token)
	return there
}

// forget lets the outcome of a call go to nobody. It holds its place until then, as in C.
func (c *calls) forget(token uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.find(token); s != nil {
		s.result, s.done = nil, nil
	}
}

func (c *calls) leaveLocked() {
	c.places--
	if len(c.waiting) != 0 && c.places < c.most {
		close(c.waiting[0])
		c.waiting = c.waiting[1:]
	}
}

func (c *calls) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaveLocked()
}

// enter waits for a place of max_in_flight, gives it to the call, and the call a token.
func (c *calls) enter(ctx context.Context, timeout time.Duration, call call) (uint64, error) {
	c.mu.Lock()
	if c.places < c.most || c.ended {
		defer c.mu.Unlock()
		return c.addLocked(call), nil
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for c.places >= c.most && !c.ended {
		room := make(chan struct{})
		c.waiting = append(c.waiting, room)
		c.mu.Unlock()
		var err error
		select {
		case <-room:
		case <-ctx.Done():
			err = contextError(ctx, call.op, "not sent, since max_in_flight sends are in flight")
		case <-timer.C:
			err = newError(call.op, StatusBusy, "not sent, since max_in_flight sends are in flight")
		}
		c.mu.Lock()
		if err != nil {
			c.giveUpLocked(room)
			c.mu.Unlock()
			return 0, err
		}
	}
	defer c.mu.Unlock()
	return c.addLocked(call), nil
}

// giveUpLocked ends a wait for a place. A place that was offered meanwhile goes to the next.
func (c *calls) giveUpLocked(room chan struct{}) {
	for i, other := range c.waiting {
		if other == room {
			c.waiting = append(c.waiting[:i:i], c.waiting[i+1:]...)
			return
		}
	}
	if len(c.waiting) != 0 && c.places < c.most {
		close(c.waiting[0])
		c.waiting = c.waiting[1:]
	}
}

// resolve takes the calls that the events are for, in one hold of the mutex.
func (c *calls) resolve(events []rawEvent) {
	c.resolved, c.finished = c.resolved[:0], 0
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range events {
		if events[i].kind == eventDone || events[i].kind == eventWake {
			taken, ok := c.takeLocked(uint64(events[i].token))
			c.resolved = append(c.resolved, resolved{call: taken, ok: ok})
		}
	}
}

// finish gives its outcome to the next of the calls that were resolved, which the event is for.
func (c *calls) finish(event *rawEvent) {
	each := c.resolved[c.finished]
	c.resolved[c.finished] = resolved{}
	c.finished++
	var err error
	if event.kind == eventDone && event.status != 0 {
		err = newError(each.described(), Status(event.status), takeText(event.text))
	}
	if each.ok {
		each.finish(err)
	}
}

func (c *call) described() string { return c.op + " " + c.name }

func (c *call) finish(err error) {
	switch {
	case c.result != nil:
		c.result <- err // it has room for one
	case c.done != nil:
		c.done(err)
	case c.wake != nil:
		c.wake.nudge()
	}
}

// end ends the calls that are left, once all that C had to tell has been taken: those that C is
// refusing at this moment, and has taken nothing of. What C took has had its outcome from C.
func (c *calls) end() {
	c.mu.Lock()
	c.ended = true
	for i := range c.slots {
		if c.slots[i].used {
			taken, _ := c.takeLocked(uint64(c.slots[i].given)<<32 | uint64(i))
			c.left = append(c.left, taken)
		}
	}
	for _, room := range c.waiting {
		close(room)
	}
	c.waiting = nil
	c.mu.Unlock()
	for len(c.left) != 0 {
		each := c.left[0]
		c.left = c.left[1:]
		each.finish(newError(each.described(), StatusClosed, "the layer was closed"))
	}
}

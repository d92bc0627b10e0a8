package channellayer

import (
	"context"
	"runtime"
)

// How a message gets here. It stays in the library until a goroutine takes it, so that the options
// that bound what waits there bound all that waits, and a goroutine that gives up loses nothing.
// Where there is none, a receiver is registered that takes none either: the first message that
// comes only wakes the goroutine up.

// channelState is what Go knows of a channel that is being received on.
type channelState struct {
	// Messages that were taken and given back. They come before those in the library.
	stash     []*Message
	receivers map[*receiver]struct{}
}

// receiver is a goroutine that receives on a channel.
type receiver struct {
	wake      chan struct{} // has room for one
	discarded bool          // under the layer's mutex
}

func (r *receiver) nudge() {
	select {
	case r.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// Receive waits for the next message of a channel of this layer. Where ctx ends first, nothing is
// lost. A ctx that has ended already only looks whether there is one. It fails with ErrCancelled if
// the channel is discarded meanwhile.
func (l *Layer) Receive(ctx context.Context, channel string) (*Message, error) {
	if err := checkText("receive", channel); err != nil {
		return nil, err
	}
	if message, err := l.pull(channel); message != nil || err != nil {
		return message, err
	}
	r := l.register(channel)
	defer l.unregister(channel, r)
	return l.next(ctx, channel, r)
}

// Handle calls handler for each message of a channel of this layer, in order, on the calling
// goroutine. It returns nil once handler has returned Stop or Decline, the error of ctx once that
// has ended, ErrCancelled when the channel is discarded, and ErrClosed when the layer is closed. No
// message is lost that handler did not get or that it declined.
func (l *Layer) Handle(ctx context.Context, channel string, handler func(*Message) Flow) error {
	if err := checkText("receive", channel); err != nil {
		return err
	}
	r := l.register(channel)
	defer l.unregister(channel, r)
	for {
		if ctx.Err() != nil {
			return contextError(ctx, "receive on "+channel, "given up")
		}
		message, err := l.next(ctx, channel, r)
		if err != nil {
			return err
		}
		switch handler(message) {
		case Continue:
		case Decline:
			l.giveBack(channel, message, r)
			return nil
		default:
			return nil
		}
	}
}

// Messages gives the messages of a channel of this layer through a Go channel, until ctx ends, the
// channel is discarded or the layer is closed; then the Go channel is closed, and Err of the
// subscription says why. A message that nobody took from the Go channel goes back.
func (l *Layer) Messages(ctx context.Context, channel string) *Subscription {
	messages := make(chan *Message)
	s := &subscription{ended: make(chan struct{})}
	go l.deliver(ctx, channel, messages, s)
	return &Subscription{C: messages, subscription: s}
}

// deliver puts the messages of a channel into a Go channel.
func (l *layer) deliver(ctx context.Context, channel string, messages chan<- *Message, s *subscription) {
	defer close(s.ended)
	defer close(messages)
	if s.err = checkText("receive", channel); s.err != nil {
		return
	}
	r := l.register(channel)
	defer l.unregister(channel, r)
	for {
		if ctx.Err() != nil {
			s.err = contextError(ctx, "receive on "+channel, "given up")
			return
		}
		message, err := l.next(ctx, channel, r)
		if err != nil {
			s.err = err
			return
		}
		if s.err = l.offer(ctx, channel, r, messages, message); s.err != nil {
			return
		}
	}
}

// offer waits until the message is taken from the Go channel.
func (l *layer) offer(ctx context.Context, channel string, r *receiver, messages chan<- *Message, message *Message) error {
	for {
		select {
		case messages <- message:
			return nil
		case <-r.wake: // perhaps for other messages, which next will find
			if l.isDiscarded(r) {
				return discardedError(channel)
			}
		case <-ctx.Done():
			l.giveBack(channel, message, r)
			return contextError(ctx, "receive on "+channel, "given up")
		case <-l.ended:
			return newError("receive on "+channel, StatusClosed, "the layer is closed")
		}
	}
}

func discardedError(channel string) error {
	return newError("receive on "+channel, StatusCancelled, "the channel was discarded")
}

// Subscription is the messages of a channel.
type Subscription struct {
	// C gives the messages, in order.
	C <-chan *Message
	*subscription
}

// subscription is what all copies of a Subscription share.
type subscription struct {
	err   error // to be read once ended is closed
	ended chan struct{}
}

// Err waits until C is closed, and says why it is.
func (s *Subscription) Err() error {
	<-s.ended
	return s.err
}

// ChannelDiscard gives a channel of this layer up, for instance because its client went away: drops
// its memberships and its messages, and ends its receivers with ErrCancelled. It never waits.
func (l *Layer) ChannelDiscard(channel string) error {
	defer runtime.KeepAlive(l.layer)
	if err := checkText("channel discard", channel); err != nil {
		return err
	}
	if err := rawChannelDiscard(l.raw, channel); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if state := l.channels[channel]; state != nil {
		l.stashed.Add(-int64(len(state.stash)))
		state.stash = nil
		for r := range state.receivers {
			r.discarded = true
			r.nudge()
		}
		l.tidy(channel, state)
	}
	return nil
}

// --- how ----------------------------------------------------------------------------------------

// pull takes the next message, if there is one.
func (l *layer) pull(channel string) (*Message, error) {
	defer runtime.KeepAlive(l)
	if l.stashed.Load() != 0 && !l.closing.Load() {
		if message := l.unstash(channel); message != nil {
			return message, nil
		}
	}
	return rawPull(l.raw, channel)
}

// next waits for the next message.
func (l *layer) next(ctx context.Context, channel string, r *receiver) (*Message, error) {
	for {
		if l.isDiscarded(r) {
			return nil, discardedError(channel)
		}
		if message, err := l.pull(channel); message != nil || err != nil {
			return message, err
		}
		if ctx.Err() != nil {
			return nil, contextError(ctx, "receive on "+channel, "no message came")
		}
		if err := l.wait(ctx, channel, r); err != nil {
			return nil, err
		}
	}
}

// wait returns once it is worth looking again, or with an error once ctx has ended.
func (l *layer) wait(ctx context.Context, channel string, r *receiver) error {
	defer runtime.KeepAlive(l)
	token := l.calls.add(call{op: "receive on", name: channel, wake: r})
	number, err := rawWake(l.raw, l.sink, channel, token)
	if err != nil {
		l.calls.drop(token)
		return err
	}
	select {
	case <-r.wake:
	case <-ctx.Done():
		err = contextError(ctx, "receive on "+channel, "no message came")
	}
	// Where somebody else woke us, and where we give up, our receiver is still there.
	if l.calls.drop(token) {
		if cancelErr := rawReceiveCancel(l.raw, number); err == nil {
			err = cancelErr
		}
	}
	return err
}

func (l *layer) register(channel string) *receiver {
	r := &receiver{wake: make(chan struct{}, 1)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stateOf(channel).receivers[r] = struct{}{}
	return r
}

func (l *layer) unregister(channel string, r *receiver) {
	l.mu.Lock()
	defer l.mu.Unlock()
	state := l.stateOf(channel)
	delete(state.receivers, r)
	l.tidy(channel, state)
}

func (l *layer) isDiscarded(r *receiver) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return r.discarded
}

func (l *layer) stateOf(channel string) *channelState {
	state := l.channels[channel]
	if state == nil {
		state = &channelState{receivers: make(map[*receiver]struct{})}
		l.channels[channel] = state
	}
	return state
}

func (l *layer) tidy(channel string, state *channelState) {
	if len(state.stash) == 0 && len(state.receivers) == 0 {
		delete(l.channels, channel)
	}
}

// giveBack puts a message first in its channel, unless the channel was discarded since.
func (l *layer) giveBack(channel string, message *Message, r *receiver) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.discarded {
		return
	}
	state := l.stateOf(channel)
	state.stash = append([]*Message{message}, state.stash...)
	l.stashed.Add(1)
	for other := range state.receivers {
		if other != r {
			other.nudge()
		}
	}
}

func (l *layer) unstash(channel string) *Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	state := l.channels[channel]
	if state == nil || len(state.stash) == 0 {
		return nil
	}
	message := state.stash[0]
	state.stash = state.stash[1:]
	l.stashed.Add(-1)
	l.tidy(channel, state)
	return message
}

package channellayer

import (
	"context"
	"runtime"
	"sync"
)

// Send sends a message to a channel, of any process, and waits for the broker's confirm, at most
// for option timeout. While the layer is not ready or max_in_flight sends are in flight, it waits
// within that time.
//
// Where ctx ends before the outcome is known, nobody knows whether the message arrives; the error
// is then that of ctx. A message holds strings, bytes, booleans, integers within signed 64 bits,
// floats, nil, slices and maps with string keys.
func (l *Layer) Send(ctx context.Context, channel string, message map[string]any) error {
	packed, err := Pack(message)
	if err != nil {
		return err
	}
	return l.send(ctx, false, channel, packed)
}

// SendPacked is Send with a message that is MessagePack already, one map.
func (l *Layer) SendPacked(ctx context.Context, channel string, packed []byte) error {
	return l.send(ctx, false, channel, packed)
}

// SendJSON is Send with a message as JSON text, one object. A string of U+FFFF followed by base64
// becomes bytes. It takes a thread of the system while it waits, so at most 16 of a layer are sent
// at once and the others wait.
func (l *Layer) SendJSON(ctx context.Context, channel, json string) error {
	return l.sendJSON(ctx, false, channel, json)
}

// GroupSend sends a message to every member of a group, in all processes, as Send does to a
// channel. ErrFull says that at least one process refused it; the others have it.
func (l *Layer) GroupSend(ctx context.Context, group string, message map[string]any) error {
	packed, err := Pack(message)
	if err != nil {
		return err
	}
	return l.send(ctx, true, group, packed)
}

// GroupSendPacked is GroupSend with a message that is MessagePack already.
func (l *Layer) GroupSendPacked(ctx context.Context, group string, packed []byte) error {
	return l.send(ctx, true, group, packed)
}

// GroupSendJSON is GroupSend with JSON text, as in SendJSON.
func (l *Layer) GroupSendJSON(ctx context.Context, group, json string) error {
	return l.sendJSON(ctx, true, group, json)
}

// SendAsync is SendPacked without waiting: the outcome goes to done, which is called once, unless
// this returns an error. With max_in_flight sends in flight that is ErrBusy.
//
// done runs on the goroutine that takes everything from the library: it must not wait, and so call
// nothing here that takes a context. SendAsync itself is allowed.
func (l *Layer) SendAsync(channel string, packed []byte, done func(error)) error {
	return l.sendAsync(false, channel, packed, done)
}

// GroupSendAsync is SendAsync to a group.
func (l *Layer) GroupSendAsync(group string, packed []byte, done func(error)) error {
	return l.sendAsync(true, group, packed, done)
}

var results = sync.Pool{New: func() any { return make(chan error, 1) }}

func (l *Layer) send(ctx context.Context, toGroup bool, name string, packed []byte) error {
	defer runtime.KeepAlive(l)
	if err := checkText("send to", name); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return contextError(ctx, "send to "+name, "not sent")
	}
	result := results.Get().(chan error)
	token, err := l.calls.enter(ctx, l.timeout,
		call{op: "send to", name: name, place: true, result: result})
	if err != nil {
		results.Put(result)
		return err
	}
	if raw := rawSend(l.raw, l.sink, toGroup, name, packed, token); raw.status != 0 {
		if l.calls.drop(token) {
			results.Put(result)
		}
		return rawTake("send to "+name, raw)
	}
	select {
	case err := <-result:
		results.Put(result)
		return err
	case <-ctx.Done():
		l.calls.forget(token) // the channel may get its outcome all the same: nobody uses it again
		return contextError(ctx, "send to "+name, "the outcome is not known yet")
	}
}

func (l *Layer) sendAsync(toGroup bool, name string, packed []byte, done func(error)) error {
	defer runtime.KeepAlive(l)
	if err := checkText("send to", name); err != nil {
		return err
	}
	if done == nil {
		return newError("send to "+name, StatusInvalid, "done is nil")
	}
	token := l.calls.add(call{op: "send to", name: name, place: true, done: done})
	raw := rawSend(l.raw, l.sink, toGroup, name, packed, token)
	if raw.status == 0 {
		return nil
	}
	err := rawTake("send to "+name, raw)
	if !l.calls.drop(token) {
		return nil // the layer has ended meanwhile, and done was told
	}
	return err
}

func (l *Layer) sendJSON(ctx context.Context, toGroup bool, name, json string) error {
	if err := checkText("send to", name, json); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return contextError(ctx, "send to "+name, "not sent")
	}
	select {
	case l.calls.json <- struct{}{}:
	case <-ctx.Done():
		return contextError(ctx, "send to "+name, "not sent")
	}
	token, err := l.calls.enter(ctx, l.timeout, call{op: "send to", name: name, place: true})
	if err != nil {
		<-l.calls.json
		return err
	}
	result := make(chan error, 1)
	go func() {
		defer runtime.KeepAlive(l)
		err := rawSendJSON(l.raw, toGroup, name, json)
		l.calls.drop(token)
		<-l.calls.json
		result <- err
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return contextError(ctx, "send to "+name, "the outcome is not known yet")
	}
}

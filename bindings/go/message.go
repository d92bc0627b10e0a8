package channellayer

import "runtime"

// Message is a message that was received. It can be read by many goroutines, and outlives its layer.
// It may be copied.
type Message struct{ *message }

// message is what all copies of a Message share. It has the finalizer, so that C's message is not
// freed while there is a copy.
type message struct {
	raw    rawMessage
	length int
	large  []byte // what does not fit
	// Most messages are small, and are one object of Go and the reference to it. That it is not a
	// tiny one matters, too: to add a finalizer takes the longer, the more objects of that size
	// share a page.
	small [216]byte
}

// newMessage takes C's message, and copies its bytes.
func newMessage(raw rawMessage, packed []byte) *Message {
	shared := &message{raw: raw, length: len(packed)}
	if copy(shared.small[:], packed) < len(packed) {
		shared.large = append([]byte(nil), packed...)
	}
	// C's part is as large as ours, so that the collector, which sees ours alone, comes in time.
	runtime.SetFinalizer(shared, (*message).free)
	return &Message{shared}
}

func (m *message) free() { rawMessageFree(m.raw) }

// handle gives C's message: NULL, which C takes for an empty one, where the Message was not received.
// It is valid until the garbage collector finds m unreachable.
func (m *message) handle() rawMessage {
	if m == nil {
		return nil
	}
	return m.raw
}

// Map decodes the message; see Unpack for the types. Each call makes a map of its own.
func (m *Message) Map() (map[string]any, error) { return Unpack(m.Packed()) }

// Packed gives the message as MessagePack. It is not to be changed.
func (m *Message) Packed() []byte {
	switch {
	case m.message == nil:
		return nil
	case m.large != nil:
		return m.large
	}
	return m.small[:m.length:m.length]
}

// JSON gives the message as JSON text; bytes become a string of U+FFFF followed by base64. It fails
// with ErrInvalid where a foreign sender sent what JSON cannot hold.
func (m *Message) JSON() (string, error) {
	defer runtime.KeepAlive(m.message)
	return rawMessageJSON(m.handle())
}

// Channel gives the full name of the channel that the message was delivered on.
func (m *Message) Channel() string {
	defer runtime.KeepAlive(m.message)
	return rawMessageChannel(m.handle())
}

// Group gives the group that the message was sent to, or "" where it was sent to the channel.
func (m *Message) Group() string {
	defer runtime.KeepAlive(m.message)
	return rawMessageGroup(m.handle())
}

// Type gives the value of the key "type", or "" where there is none or it is no string.
func (m *Message) Type() string {
	defer runtime.KeepAlive(m.message)
	return rawMessageType(m.handle())
}

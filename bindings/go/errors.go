package channellayer

import "fmt"

// Status says how a call ended. The numbers are those of the C API.
type Status int32

// The statuses.
const (
	// StatusOK is success. No error has it.
	StatusOK Status = 0
	// StatusInvalid is an argument, option, name or message that is not allowed, or a channel of
	// another layer.
	StatusInvalid Status = 1
	// StatusFull says that the broker refused the message, since a queue that it goes to is full
	// or failing.
	// For a group: at least one process refused it, the others have it.
	StatusFull Status = 2
	// StatusNoChannel says that no queue for this channel exists now.
	StatusNoChannel Status = 3
	// StatusTooLarge says that the message is larger than option max_message_size.
	StatusTooLarge Status = 4
	// StatusDisconnected says that the message was certainly not sent: no connection took it.
	StatusDisconnected Status = 5
	// StatusBusy says that the message was certainly not sent: too many are in flight, or the
	// broker blocks publishers.
	StatusBusy Status = 6
	// StatusTimeout says that nobody knows whether the message arrived, or that a wait ran out.
	StatusTimeout Status = 7
	// StatusUnconfirmed says that the connection was lost before the confirm: nobody knows.
	StatusUnconfirmed Status = 8
	// StatusRefused says that each host refused us for credentials, vhost or TLS. Attempts go on.
	StatusRefused Status = 9
	// StatusCancelled says that the channel of the receiver was discarded.
	StatusCancelled Status = 10
	// StatusClosed says that the layer is closed.
	StatusClosed Status = 11
	// StatusWouldDeadlock says that the call would have waited inside a callback. This package
	// runs no code of yours there, and so never meets it.
	StatusWouldDeadlock Status = 12
	// StatusForked says that the layer belongs to the parent of this process.
	StatusForked Status = 13
	// StatusInternal is a bug in the library. The text says where.
	StatusInternal Status = 14
)

// String gives the name that the C API has for it, as "LAYER_FULL".
func (s Status) String() string { return statusName(s) }

// Error is the error of every call that failed in the C library: its status and its text. Compare
// it by errors.Is with the sentinels below, which ask for the status alone.
type Error struct {
	Status Status
	// Op says what was being done, as "send to a!b".
	Op string
	// Text is what the C library says of it: what failed, what is allowed, what to do.
	Text  string
	cause error
}

func newError(op string, status Status, text string) *Error {
	return &Error{Status: status, Op: op, Text: text}
}

// Error gives all of it for a person.
func (e *Error) Error() string {
	return fmt.Sprintf("channellayer: %s: %s (%s)", e.Op, e.Text, e.Status)
}

// Is says whether target is the sentinel of this status.
func (e *Error) Is(target error) bool {
	sentinel, ok := target.(*statusError)
	return ok && sentinel.status == e.Status
}

// Unwrap gives the error of the context that ended a wait, or nil.
func (e *Error) Unwrap() error { return e.cause }

type statusError struct{ status Status }

func (e *statusError) Error() string { return "channellayer: " + e.status.String() }

// The sentinels, one for each status, for errors.Is.
var (
	ErrInvalid       error = &statusError{StatusInvalid}
	ErrFull          error = &statusError{StatusFull}
	ErrNoChannel     error = &statusError{StatusNoChannel}
	ErrTooLarge      error = &statusError{StatusTooLarge}
	ErrDisconnected  error = &statusError{StatusDisconnected}
	ErrBusy          error = &statusError{StatusBusy}
	ErrTimeout       error = &statusError{StatusTimeout}
	ErrUnconfirmed   error = &statusError{StatusUnconfirmed}
	ErrRefused       error = &statusError{StatusRefused}
	ErrCancelled     error = &statusError{StatusCancelled}
	ErrClosed        error = &statusError{StatusClosed}
	ErrWouldDeadlock error = &statusError{StatusWouldDeadlock}
	ErrForked        error = &statusError{StatusForked}
	ErrInternal      error = &statusError{StatusInternal}
)

package channellayer

// State is the state of a layer.
type State int32

// The states.
const (
	// StateConnecting says that the layer is not wholly connected. Attempts go on for ever.
	StateConnecting State = 0
	// StateReady says that both connections stand and every group is bound.
	StateReady State = 1
	// StateRefused says that each host refused us for credentials, vhost or TLS.
	StateRefused State = 2
	// StateClosed says that the layer is closed or closing.
	StateClosed State = 3
)

// LogLevel says how grave a log record is.
type LogLevel int32

// The levels.
const (
	// LogError is something that does not work and needs a person.
	LogError LogLevel = 1
	// LogWarn is something that was lost or is about to be.
	LogWarn LogLevel = 2
	// LogInfo is something that changed, as it should.
	LogInfo LogLevel = 3
	// LogDebug is what a maintainer wants to see.
	LogDebug LogLevel = 4
)

// IsolationEvent is what isolation does. Messages that channels have not taken keep the broker from
// sending any to the others; once that has lasted for option stall_after, channels are isolated: none
// holds deliveries back, and each keeps at most channel_capacity messages and loses its newest beyond,
// until what waits is at most half of local_capacity and prefetch_count.
type IsolationEvent int32

// What isolation does.
const (
	// IsolationBegan says that channels are isolated from now on.
	IsolationBegan IsolationEvent = 1
	// IsolationLost says that a channel has lost its newest messages.
	IsolationLost IsolationEvent = 2
	// IsolationEnded says that channels are not isolated any more.
	IsolationEnded IsolationEvent = 3
)

// Flow is what a handler says of a message.
type Flow int32

// What a handler can say.
const (
	// Continue takes the message and goes on.
	Continue Flow = 0
	// Stop takes the message and ends.
	Stop Flow = 1
	// Decline does not take the message: it stays first in its channel. The handler ends.
	Decline Flow = 2
)

// Stat is a counter or gauge of a layer. Counters only grow; gauges say how it is now. The C header
// describes each.
type Stat uint32

// The counters and gauges.
const (
	StatSendsConfirmed     Stat = 1
	StatSendsFull          Stat = 2
	StatSendsNoChannel     Stat = 3
	StatSendsUnknown       Stat = 4
	StatSendsUnsent        Stat = 5
	StatDeliveries         Stat = 6
	StatReceived           Stat = 7
	StatDroppedExpired     Stat = 8
	StatDroppedChannelFull Stat = 9
	StatDroppedRedelivered Stat = 10
	StatDroppedMalformed   Stat = 11
	StatDroppedNoMember    Stat = 12
	StatDroppedForeign     Stat = 13
	StatDroppedDiscarded   Stat = 14
	// StatEventsDropped counts also what was dropped since OnLog, OnState or OnIsolation was too
	// slow.
	StatEventsDropped       Stat = 15
	StatGeneration          Stat = 16
	StatBacklog             Stat = 17
	StatInFlight            Stat = 18
	StatChannels            Stat = 19
	StatReceivers           Stat = 20
	StatGroups              Stat = 21
	StatMemberships         Stat = 22
	StatGroupsBound         Stat = 23
	StatPublishersBlocked   Stat = 24
	StatDeliveriesHeld      Stat = 25
	StatSendsAccepted       Stat = 26
	StatSendsTimedOut       Stat = 27
	StatSendsUnconfirmed    Stat = 28
	StatReconnects          Stat = 29
	StatCallbacks           Stat = 30
	StatCallbackNanoseconds Stat = 31
	StatReady               Stat = 32
	StatIsolating           Stat = 33
	StatIsolations          Stat = 34
	StatDroppedTotalFull    Stat = 35
	StatMembershipsExpired  Stat = 36
	StatSendsRefused        Stat = 37
	StatQueueRenames        Stat = 38
)

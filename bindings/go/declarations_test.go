package channellayer_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"

	channellayer "example.org/channel-layer/bindings/go"
)

// By their names in the header, without the common beginning.

var statuses = map[string]channellayer.Status{
	"OK":             channellayer.StatusOK,
	"INVALID":        channellayer.StatusInvalid,
	"FULL":           channellayer.StatusFull,
	"NO_CHANNEL":     channellayer.StatusNoChannel,
	"TOO_LARGE":      channellayer.StatusTooLarge,
	"DISCONNECTED":   channellayer.StatusDisconnected,
	"BUSY":           channellayer.StatusBusy,
	"TIMEOUT":        channellayer.StatusTimeout,
	"UNCONFIRMED":    channellayer.StatusUnconfirmed,
	"REFUSED":        channellayer.StatusRefused,
	"CANCELLED":      channellayer.StatusCancelled,
	"CLOSED":         channellayer.StatusClosed,
	"WOULD_DEADLOCK": channellayer.StatusWouldDeadlock,
	"FORKED":         channellayer.StatusForked,
	"INTERNAL":       channellayer.StatusInternal,
}

var sentinels = map[string]error{
	"INVALID":        channellayer.ErrInvalid,
	"FULL":           channellayer.ErrFull,
	"NO_CHANNEL":     channellayer.ErrNoChannel,
	"TOO_LARGE":      channellayer.ErrTooLarge,
	"DISCONNECTED":   channellayer.ErrDisconnected,
	"BUSY":           channellayer.ErrBusy,
	"TIMEOUT":        channellayer.ErrTimeout,
	"UNCONFIRMED":    channellayer.ErrUnconfirmed,
	"REFUSED":        channellayer.ErrRefused,
	"CANCELLED":      channellayer.ErrCancelled,
	"CLOSED":         channellayer.ErrClosed,
	"WOULD_DEADLOCK": channellayer.ErrWouldDeadlock,
	"FORKED":         channellayer.ErrForked,
	"INTERNAL":       channellayer.ErrInternal,
}

var states = map[string]channellayer.State{
	"CONNECTING": channellayer.StateConnecting,
	"READY":      channellayer.StateReady,
	"REFUSED":    channellayer.StateRefused,
	"CLOSED":     channellayer.StateClosed,
}

var levels = map[string]channellayer.LogLevel{
	"ERROR": channellayer.LogError,
	"WARN":  channellayer.LogWarn,
	"INFO":  channellayer.LogInfo,
	"DEBUG": channellayer.LogDebug,
}

var isolationEvents = map[string]channellayer.IsolationEvent{
	"BEGAN": channellayer.IsolationBegan,
	"LOST":  channellayer.IsolationLost,
	"ENDED": channellayer.IsolationEnded,
}

var flows = map[string]channellayer.Flow{
	"CONTINUE": channellayer.Continue,
	"STOP":     channellayer.Stop,
	"DECLINE":  channellayer.Decline,
}

var stats = map[string]channellayer.Stat{
	"SENDS_CONFIRMED":      channellayer.StatSendsConfirmed,
	"SENDS_FULL":           channellayer.StatSendsFull,
	"SENDS_NO_CHANNEL":     channellayer.StatSendsNoChannel,
	"SENDS_UNKNOWN":        channellayer.StatSendsUnknown,
	"SENDS_UNSENT":         channellayer.StatSendsUnsent,
	"DELIVERIES":           channellayer.StatDeliveries,
	"RECEIVED":             channellayer.StatReceived,
	"DROPPED_EXPIRED":      channellayer.StatDroppedExpired,
	"DROPPED_CHANNEL_FULL": channellayer.StatDroppedChannelFull,
	"DROPPED_REDELIVERED":  channellayer.StatDroppedRedelivered,
	"DROPPED_MALFORMED":    channellayer.StatDroppedMalformed,
	"DROPPED_NO_MEMBER":    channellayer.StatDroppedNoMember,
	"DROPPED_FOREIGN":      channellayer.StatDroppedForeign,
	"DROPPED_DISCARDED":    channellayer.StatDroppedDiscarded,
	"EVENTS_DROPPED":       channellayer.StatEventsDropped,
	"GENERATION":           channellayer.StatGeneration,
	"BACKLOG":              channellayer.StatBacklog,
	"IN_FLIGHT":            channellayer.StatInFlight,
	"CHANNELS":             channellayer.StatChannels,
	"RECEIVERS":            channellayer.StatReceivers,
	"GROUPS":               channellayer.StatGroups,
	"MEMBERSHIPS":          channellayer.StatMemberships,
	"GROUPS_BOUND":         channellayer.StatGroupsBound,
	"PUBLISHERS_BLOCKED":   channellayer.StatPublishersBlocked,
	"DELIVERIES_HELD":      channellayer.StatDeliveriesHeld,
	"SENDS_ACCEPTED":       channellayer.StatSendsAccepted,
	"SENDS_TIMED_OUT":      channellayer.StatSendsTimedOut,
	"SENDS_UNCONFIRMED":    channellayer.StatSendsUnconfirmed,
	"RECONNECTS":           channellayer.StatReconnects,
	"CALLBACKS":            channellayer.StatCallbacks,
	"CALLBACK_NANOSECONDS": channellayer.StatCallbackNanoseconds,
	"READY":                channellayer.StatReady,
	"ISOLATING":            channellayer.StatIsolating,
	"ISOLATIONS":           channellayer.StatIsolations,
	"DROPPED_TOTAL_FULL":   channellayer.StatDroppedTotalFull,
	"MEMBERSHIPS_EXPIRED":  channellayer.StatMembershipsExpired,
	"SENDS_REFUSED":        channellayer.StatSendsRefused,
	"QUEUE_RENAMES":        channellayer.StatQueueRenames,
}

// notUsed are the functions of the header that this package does without, and why.
var notUsed = map[string]string{
	"layer_send":            "a waiting goroutine would take a thread: layer_send_async",
	"layer_group_send":      "a waiting goroutine would take a thread: layer_group_send_async",
	"layer_group_add":       "a waiting goroutine would take a thread: layer_group_add_async",
	"layer_close":           "a waiting goroutine would take a thread: layer_close_async",
	"layer_send_json":       "a waiting goroutine would take a thread: layer_send_json_async",
	"layer_group_send_json": "a waiting goroutine would take a thread: layer_group_send_json_async",
	"layer_fd":              "Go's poller closes what it watches: layer_fd_dup",
	"layer_message_ref":     "no message is lent to Go: layer_receive_next gives one of its own",
}

type header struct {
	Functions map[string]json.RawMessage `json:"functions"`
	Callbacks map[string]json.RawMessage `json:"callbacks"`
	Enums     map[string]struct {
		Type   string           `json:"type"`
		Values map[string]int64 `json:"values"`
	} `json:"enums"`
	Constants map[string]any `json:"constants"`
}

func readHeader(t *testing.T) header {
	t.Helper()
	text, err := os.ReadFile(environment(t, "CHANNEL_LAYER_TEST_API"))
	if err != nil {
		t.Fatal(err)
	}
	var found header
	if err := json.Unmarshal(text, &found); err != nil {
		t.Fatal(err)
	}
	return found
}

// TestTheNumbersAreThoseOfTheHeader compares each enum, name by name, in both directions.
func TestTheNumbersAreThoseOfTheHeader(t *testing.T) {
	found := readHeader(t)
	ours := map[string]map[string]int64{}
	collect := func(enum, prefix, name string, value int64) {
		if ours[enum] == nil {
			ours[enum] = map[string]int64{}
		}
		ours[enum][prefix+name] = value
	}
	for name, value := range statuses {
		collect("layer_status_t", "LAYER_", name, int64(value))
	}
	for name, value := range states {
		collect("layer_state_t", "LAYER_STATE_", name, int64(value))
	}
	for name, value := range levels {
		collect("layer_log_level_t", "LAYER_LOG_", name, int64(value))
	}
	for name, value := range isolationEvents {
		collect("layer_isolation_t", "LAYER_ISOLATION_", name, int64(value))
	}
	for name, value := range flows {
		collect("layer_flow_t", "LAYER_", name, int64(value))
	}
	for name, value := range stats {
		collect("layer_stat_t", "LAYER_STAT_", name, int64(value))
	}
	if len(ours) != len(found.Enums) {
		t.Errorf("the header has %d enums, this package %d", len(found.Enums), len(ours))
	}
	for enum, theirs := range found.Enums {
		for name, value := range theirs.Values {
			if mine, there := ours[enum][name]; !there || mine != value {
				t.Errorf("%s is %d in the header; here: %v %d", name, value, there, mine)
			}
		}
		for name := range ours[enum] {
			if _, there := theirs.Values[name]; !there {
				t.Errorf("%s is not in the header", name)
			}
		}
	}
}

func TestEachStatusHasItsSentinelAndItsName(t *testing.T) {
	for name, status := range statuses {
		if status.String() != "LAYER_"+name {
			t.Errorf("%s is called %s", name, status)
		}
		if _, there := sentinels[name]; there == (status == channellayer.StatusOK) {
			t.Errorf("%s: sentinel: %v", name, there)
		}
		err := &channellayer.Error{Status: status}
		for other, sentinel := range sentinels {
			if err.Is(sentinel) != (other == name) {
				t.Errorf("%s is %s: %v", name, other, other != name)
			}
		}
	}
}

// TestEachFunctionOfTheHeaderIsUsed: that they are used with the right types is seen to by the
// compiler, since cgo and the C file here read the header itself.
func TestEachFunctionOfTheHeaderIsUsed(t *testing.T) {
	found := readHeader(t)
	used := map[string]bool{}
	for _, pattern := range []string{"raw.go", "shim.c"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no %s: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			code := regexp.MustCompile(`(?s)//[^\n]*|/\* .*?\*/`).ReplaceAllString(string(text), "")
			for _, name := range regexp.MustCompile(`\blayer_\w+\b`).FindAllString(code, -1) {
				used[name] = true
			}
		}
	}
	var wrong []string
	for name := range found.Functions {
		if _, excused := notUsed[name]; used[name] == excused {
			wrong = append(wrong, name)
		}
	}
	for name := range used {
		_, function := found.Functions[name]
		_, callback := found.Callbacks[name]
		if !function && !callback && !strings.HasSuffix(name, "_t") {
			wrong = append(wrong, name+" (not in the header)")
		}
	}
	for name := range notUsed {
		if _, there := found.Functions[name]; !there {
			wrong = append(wrong, name+" (excused, and not in the header)")
		}
	}
	sort.Strings(wrong)
	if len(wrong) != 0 {
		t.Errorf("used though excused, or neither used nor excused: %s", strings.Join(wrong, ", "))
	}
}

func TestTheLibraryIsOfTheHeadersVersion(t *testing.T) {
	if wanted := readHeader(t).Constants["LAYER_VERSION"]; channellayer.Version() != wanted {
		t.Errorf("the library is %s, the header %v", channellayer.Version(), wanted)
	}
}

package channellayer

// The raw declarations: each C function that this package uses, under its name in Go. Nothing else
// in this package knows C.

/*
#cgo pkg-config: channel_layer
#cgo CFLAGS: -std=c11 -D_GNU_SOURCE -pthread -Werror=incompatible-pointer-types
#cgo LDFLAGS: -pthread

#include <stdlib.h>
#include <string.h>

#include "shim.h"

// A name as C wants it, with its NUL: in `room` where it fits, and no allowed name is longer. The
// caller frees what is not `room`.
static const char *go_name(_GoString_ name, char room[LAYER_NAME_SIZE]) {
    size_t length = _GoStringLen(name);
    char *text = length < LAYER_NAME_SIZE ? room : malloc(length + 1);
    if (text == NULL) {
        abort();
    }
    memcpy(text, _GoStringPtr(name), length);
    text[length] = '\0';
    return text;
}

static void go_name_free(const char *text, const char room[LAYER_NAME_SIZE]) {
    if (text != room) {
        free((void *)text);
    }
}

// What is called for each message takes its handles as numbers. Their types are incomplete: cgo
// would allocate for each such pointer, to look whether it is one of Go's.
static cl_result go_send(uintptr_t layer, uintptr_t sink, int to_group, _GoString_ name,
                         uint8_t *message, size_t length, uint64_t token) {
    char room[LAYER_NAME_SIZE];
    const char *text = go_name(name, room);
    cl_result result = cl_send((const layer_t *)layer, (cl_sink *)sink, to_group, text, message,
                               length, token);
    go_name_free(text, room);
    return result;
}

static cl_result go_group_add(layer_t *layer, cl_sink *sink, _GoString_ group, _GoString_ channel,
                              uint64_t token) {
    char rooms[2][LAYER_NAME_SIZE];
    const char *group_text = go_name(group, rooms[0]), *channel_text = go_name(channel, rooms[1]);
    cl_result result = cl_group_add(layer, sink, group_text, channel_text, token);
    go_name_free(group_text, rooms[0]);
    go_name_free(channel_text, rooms[1]);
    return result;
}

static cl_result go_group_discard(layer_t *layer, _GoString_ group, _GoString_ channel) {
    char rooms[2][LAYER_NAME_SIZE];
    const char *group_text = go_name(group, rooms[0]), *channel_text = go_name(channel, rooms[1]);
    cl_result result = {LAYER_OK, NULL};
    result.status = layer_group_discard(layer, group_text, channel_text, &result.error);
    go_name_free(group_text, rooms[0]);
    go_name_free(channel_text, rooms[1]);
    return result;
}

static cl_result go_channel_discard(layer_t *layer, _GoString_ channel) {
    char room[LAYER_NAME_SIZE];
    const char *text = go_name(channel, room);
    cl_result result = {LAYER_OK, NULL};
    result.status = layer_channel_discard(layer, text, &result.error);
    go_name_free(text, room);
    return result;
}

static cl_received go_wake(layer_t *layer, cl_sink *sink, _GoString_ channel, uint64_t token) {
    char room[LAYER_NAME_SIZE];
    const char *text = go_name(channel, room);
    cl_received received = cl_wake(layer, sink, text, token);
    go_name_free(text, room);
    return received;
}

static cl_pulled go_pull(uintptr_t layer, _GoString_ channel) {
    char room[LAYER_NAME_SIZE];
    const char *text = go_name(channel, room);
    cl_pulled pulled = cl_pull((const layer_t *)layer, text);
    go_name_free(text, room);
    return pulled;
}

static void go_message_free(uintptr_t message) { layer_message_free((layer_message_t *)message); }
*/
import "C"

import (
	"os"
	"unsafe"
)

type (
	rawLayer   = *C.layer_t
	rawSink    = *C.cl_sink
	rawMessage = *C.layer_message_t
	rawEvent   = C.cl_event
)

const (
	abiVersion     = C.LAYER_ABI_VERSION
	eventDone      = C.CL_DONE
	eventWake      = C.CL_WAKE
	eventLog       = C.CL_LOG
	eventState     = C.CL_STATE
	eventIsolation = C.CL_ISOLATION
)

// takeError makes an error of a status and the error object, which it frees.
func takeError(what string, status C.layer_status_t, raw *C.layer_error_t) error {
	if status == C.LAYER_OK {
		return nil
	}
	defer C.layer_error_free(raw)
	if raw == nil {
		return newError(what, Status(status), statusName(Status(status)))
	}
	return newError(what, Status(C.layer_error_status(raw)), C.GoString(C.layer_error_message(raw)))
}

func rawTake(what string, result C.cl_result) error {
	if result.status == C.LAYER_OK {
		return nil
	}
	return takeError(what, result.status, result.error)
}

func statusName(status Status) string {
	return C.GoString(C.layer_status_name(C.int32_t(status)))
}

func rawVersion() string     { return C.GoString(C.layer_version()) }
func rawABIVersion() uint32  { return uint32(C.layer_abi_version()) }
func rawNewSink() rawSink    { return C.cl_sink_new() }
func rawFreeSink(s rawSink)  { C.cl_sink_release(s) }
func rawFree(layer rawLayer) { C.layer_free(layer) }

// rawConfig makes a C config of these options, to be freed by the caller.
func rawConfig(op string, options [][2]string) (*C.layer_config_t, error) {
	config := C.layer_config_new()
	if config == nil {
		return nil, newError(op, StatusInternal, "out of memory")
	}
	for _, option := range options {
		name, value := C.CString(option[0]), C.CString(option[1])
		var raw *C.layer_error_t
		status := C.layer_config_set(config, name, value, &raw)
		C.free(unsafe.Pointer(name))
		C.free(unsafe.Pointer(value))
		if err := takeError(op, status, raw); err != nil {
			C.layer_config_free(config)
			return nil, err
		}
	}
	return config, nil
}

// rawCheck gives the error that rawNew would give for these options.
func rawCheck(options [][2]string) error {
	config, err := rawConfig("check", options)
	if err != nil {
		return err
	}
	defer C.layer_config_free(config)
	var raw *C.layer_error_t
	return takeError("check", C.layer_config_check(config, &raw), raw)
}

// rawNew opens a layer with these options, whose callbacks go to the sink.
func rawNew(options [][2]string, sink rawSink) (rawLayer, error) {
	config, err := rawConfig("open", options)
	if err != nil {
		return nil, err
	}
	defer C.layer_config_free(config)
	if err := rawTake("open", C.cl_config_callbacks(config, sink)); err != nil {
		return nil, err
	}
	var layer *C.layer_t
	var raw *C.layer_error_t
	if err := takeError("open", C.layer_new(config, &layer, &raw), raw); err != nil {
		return nil, err
	}
	return layer, nil
}

// rawFile gives the descriptor that is readable while callbacks are due, to Go's poller.
func rawFile(layer rawLayer) (*os.File, error) {
	var descriptor C.int
	var raw *C.layer_error_t
	if err := takeError("open", C.layer_fd_dup(layer, &descriptor, &raw), raw); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(descriptor), "channel_layer"), nil
}

func rawWaitReady(layer rawLayer) error {
	var raw *C.layer_error_t
	status := C.layer_wait_ready(layer, 0, &raw)
	return takeError("wait for the layer to be ready", status, raw)
}

func rawState(layer rawLayer) (State, error) {
	var state C.layer_state_t
	var raw *C.layer_error_t
	status := C.layer_state(layer, &state, &raw)
	return State(state), takeError("state", status, raw)
}

func rawStat(layer rawLayer, which Stat) (uint64, error) {
	var value C.uint64_t
	var raw *C.layer_error_t
	status := C.layer_stat(layer, C.uint32_t(which), &value, &raw)
	return uint64(value), takeError("stat", status, raw)
}

func rawPrometheus(layer rawLayer, labels string) (string, error) {
	text := C.CString(labels)
	defer C.free(unsafe.Pointer(text))
	var most, length C.size_t
	var raw *C.layer_error_t
	status := C.layer_stats_prometheus(layer, text, nil, 0, &most, &raw)
	if err := takeError("prometheus", status, raw); err != nil {
		return "", err
	}
	room := make([]byte, most+1)
	status = C.layer_stats_prometheus(layer, text, (*C.char)(unsafe.Pointer(&room[0])), most+1, &length, &raw)
	if err := takeError("prometheus", status, raw); err != nil {
		return "", err
	}
	return string(room[:length]), nil
}

func rawNewChannel(layer rawLayer, prefix string) (string, error) {
	text := C.CString(prefix)
	defer C.free(unsafe.Pointer(text))
	var name [C.LAYER_NAME_SIZE]C.char
	var raw *C.layer_error_t
	status := C.layer_new_channel(layer, text, &name[0], C.LAYER_NAME_SIZE, &raw)
	if err := takeError("new channel", status, raw); err != nil {
		return "", err
	}
	return C.GoString(&name[0]), nil
}

func rawClose(layer rawLayer, sink rawSink, milliseconds uint32, token uint64) error {
	return rawTake("close", C.cl_close(layer, sink, C.uint32_t(milliseconds), C.uint64_t(token)))
}

// asNumber is how go_send and the like take a handle.
func asNumber(handle unsafe.Pointer) C.uintptr_t { return C.uintptr_t(uintptr(handle)) }

// rawDrain runs up to max callbacks and gives what they told. The events belong to the sink, and
// live until the next call. more says that callbacks may still be due, ended that none will come.
func rawDrain(layer rawLayer, sink rawSink, max int) (events []rawEvent, more, ended bool) {
	drained := C.cl_drain(layer, sink, C.size_t(max))
	if drained.count != 0 {
		events = unsafe.Slice((*rawEvent)(unsafe.Pointer(drained.events)), int(drained.count))
	}
	return events, drained.ran != 0, drained.status == C.LAYER_CLOSED
}

// takeText gives a text of an event, and frees it.
func takeText(text C.uintptr_t) string {
	if text == 0 {
		return ""
	}
	// The number is C's pointer; go vet knows no other way to say so than through its address.
	pointer := *(*unsafe.Pointer)(unsafe.Pointer(&text))
	defer C.free(pointer)
	return C.GoString((*C.char)(pointer))
}

func rawSend(layer rawLayer, sink rawSink, toGroup bool, name string, packed []byte, token uint64) C.cl_result {
	group := C.int(0)
	if toGroup {
		group = 1
	}
	var message *C.uint8_t
	if len(packed) != 0 {
		message = (*C.uint8_t)(unsafe.Pointer(&packed[0]))
	}
	return C.go_send(asNumber(unsafe.Pointer(layer)), asNumber(unsafe.Pointer(sink)), group, name,
		message, C.size_t(len(packed)), C.uint64_t(token))
}

func rawSendJSON(layer rawLayer, sink rawSink, toGroup bool, name, json string, token uint64) C.cl_result {
	group := C.int(0)
	if toGroup {
		group = 1
	}
	nameText, text := C.CString(name), C.CString(json)
	defer C.free(unsafe.Pointer(nameText))
	defer C.free(unsafe.Pointer(text))
	return C.cl_send_json(layer, sink, group, nameText, text, C.uint64_t(token))
}

// rawSubmit hands a message to C. The outcome is an event for the token, unless this fails.
func rawSubmit(layer rawLayer, sink rawSink, toGroup bool, name string, body body, token uint64) C.cl_result {
	if body.isJSON {
		return rawSendJSON(layer, sink, toGroup, name, body.json, token)
	}
	return rawSend(layer, sink, toGroup, name, body.packed, token)
}

func rawGroupAdd(layer rawLayer, sink rawSink, group, channel string, token uint64) error {
	return rawTake("group add", C.go_group_add(layer, sink, group, channel, C.uint64_t(token)))
}

func rawGroupDiscard(layer rawLayer, group, channel string) error {
	return rawTake("group discard", C.go_group_discard(layer, group, channel))
}

func rawChannelDiscard(layer rawLayer, channel string) error {
	return rawTake("channel discard", C.go_channel_discard(layer, channel))
}

func rawWake(layer rawLayer, sink rawSink, channel string, token uint64) (uint64, error) {
	received := C.go_wake(layer, sink, channel, C.uint64_t(token))
	return uint64(received.receiver), rawTake("receive on "+channel, received.result)
}

func rawReceiveCancel(layer rawLayer, receiver uint64) error {
	var raw *C.layer_error_t
	return takeError("cancel", C.layer_receive_cancel(layer, C.uint64_t(receiver), &raw), raw)
}

// rawPull gives the next message of a channel, or nil where there is none.
func rawPull(layer rawLayer, channel string) (*Message, error) {
	pulled := C.go_pull(asNumber(unsafe.Pointer(layer)), channel)
	if pulled.result.status == C.LAYER_TIMEOUT {
		C.layer_error_free(pulled.result.error)
		return nil, nil
	}
	if pulled.result.status != C.LAYER_OK {
		return nil, rawTake("receive on "+channel, pulled.result)
	}
	data := unsafe.Slice((*byte)(unsafe.Pointer(pulled.data)), int(pulled.length))
	return newMessage(pulled.message, data), nil
}

func rawMessageFree(message rawMessage) { C.go_message_free(asNumber(unsafe.Pointer(message))) }
func rawMessageChannel(message rawMessage) string {
	return C.GoString(C.layer_message_channel(message))
}
func rawMessageGroup(message rawMessage) string { return C.GoString(C.layer_message_group(message)) }
func rawMessageType(message rawMessage) string  { return C.GoString(C.layer_message_type(message)) }

func rawMessageJSON(message rawMessage) (string, error) {
	var text *C.char
	var raw *C.layer_error_t
	if err := takeError("JSON", C.layer_message_json(message, &text, &raw), raw); err != nil {
		return "", err
	}
	return C.GoString(text), nil
}

package jimu

// #include "bridge.h"
import "C"

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
)

// exchange is a request in progress, and its http.ResponseWriter.
type exchange struct {
	slot   *C.bridge_slot
	serial C.uint32_t
	// done receives the end of each operation, abandoned is closed if there will be none.
	done      chan struct{}
	abandoned chan struct{}
	context   context.Context
	cancel    context.CancelFunc
	// mutex orders operations: a handler may read and write in two goroutines.
	mutex  sync.Mutex
	header http.Header
	status int
	isHead bool
	// sent is whether the head has left, or is part of the next operation.
	sent  bool
	ended bool
	err   error
}

var _ http.Flusher = (*exchange)(nil)

func newExchange(slot *C.bridge_slot, serial C.uint32_t) *exchange {
	ctx, cancel := context.WithCancel(context.Background())
	return &exchange{
		slot: slot, serial: serial, done: make(chan struct{}, 1), abandoned: make(chan struct{}),
		context: ctx, cancel: cancel, header: make(http.Header),
	}
}

// serve runs the handler, and ends the request whatever the handler does.
func (x *exchange) serve(handler http.Handler) {
	defer x.cancel()
	request, err := newRequest(x)
	if err != nil {
		x.fail(C.JIMU_FAILURE_PROTOCOL, http.StatusBadRequest, err.Error())
		return
	}
	x.isHead = request.Method == http.MethodHead
	if !x.run(handler, request) {
		return
	}
	x.mutex.Lock()
	defer x.mutex.Unlock()
	x.ended = true
	if err := x.prepareHead(true); err != nil {
		x.fail(C.JIMU_FAILURE_OTHER, 0, err.Error())
		return
	}
	C.bridge_ask(x.slot, C.BRIDGE_END)
}

// run calls the handler; returns false if it has panicked, and the request has ended with that.
func (x *exchange) run(handler http.Handler, request *http.Request) (returned bool) {
	defer func() {
		reason := recover()
		if returned {
			return
		}
		x.mutex.Lock()
		defer x.mutex.Unlock()
		x.ended = true
		if reason == http.ErrAbortHandler {
			x.fail(C.JIMU_FAILURE_GONE, 0, "the handler has aborted the response")
			return
		}
		if reason == nil {
			reason = "runtime.Goexit was called"
		}
		words := fmt.Sprintf("the handler panicked: %v", reason)
		logLine(C.JIMU_LOG_ERROR, words+"\n"+string(debug.Stack()))
		x.fail(C.JIMU_FAILURE_PANIC, 0, words)
	}()
	handler.ServeHTTP(x, request)
	return true
}

// Header returns the headers of the response.
func (x *exchange) Header() http.Header { return x.header }

// WriteHeader sets the status; the head is sent with the first part of the body, or at the end.
func (x *exchange) WriteHeader(status int) {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	x.writeHeader(status)
}

func (x *exchange) writeHeader(status int) {
	if x.status != 0 || x.ended {
		return
	}
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	}
	if status >= 200 || status == http.StatusSwitchingProtocols {
		x.status = status
		// What the handler changes from now on has no effect.
		x.header = x.header.Clone()
		return
	}
	if x.setHead(status, x.header) == nil {
		_ = x.ask(C.BRIDGE_INFORM)
	}
}

// Write writes a part of the body.
func (x *exchange) Write(bytes []byte) (int, error) {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	if x.ended {
		return 0, http.ErrHandlerTimeout
	}
	x.writeHeader(http.StatusOK)
	if !hasBody(x.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if !x.sent {
		x.setContentType(bytes)
	}
	if x.isHead {
		return len(bytes), nil
	}
	written := 0
	for written < len(bytes) && x.err == nil {
		count := copy(x.room(), bytes[written:])
		x.slot.filled += C.size_t(count)
		if len(x.room()) == 0 {
			x.flush()
		}
		written += count
	}
	return written, x.err
}

// Flush sends what was written.
func (x *exchange) Flush() {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	if !x.ended {
		x.writeHeader(http.StatusOK)
		x.flush()
	}
}

func (x *exchange) flush() {
	if x.err == nil {
		x.err = x.prepareHead(false)
	}
	if x.err == nil {
		x.err = x.ask(C.BRIDGE_WRITE)
	}
	x.slot.filled = 0
}

// prepareHead adds the head to the next operation, unless it has been sent. At the end the length of the body is known.
func (x *exchange) prepareHead(isEnd bool) error {
	if x.sent {
		return nil
	}
	x.sent = true
	if x.status == 0 {
		x.status = http.StatusOK
	}
	// The server frames the body.
	x.header.Del("Transfer-Encoding")
	if isEnd && !x.isHead && hasBody(x.status) && x.header.Get("Content-Length") == "" {
		x.header.Set("Content-Length", strconv.Itoa(int(x.slot.filled)))
	}
	return x.setHead(x.status, x.header)
}

// setContentType guesses the type from the beginning of the body, as net/http does.
func (x *exchange) setContentType(bytes []byte) {
	_, isSet := x.header["Content-Type"]
	if !isSet && x.slot.filled == 0 && len(bytes) > 0 && x.header.Get("Content-Encoding") == "" {
		x.header.Set("Content-Type", http.DetectContentType(bytes))
	}
}

func hasBody(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

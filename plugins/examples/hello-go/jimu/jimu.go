// Package jimu makes an application of the Jimu server of an http.Handler. In a main package:
//
//	func init() { jimu.Serve(handler) }
//	func main() {}
//
//	go build -buildmode=c-shared -o libhello_app.so .
//
// The library is opened in each worker, since a Go runtime does not survive a fork. Each request runs in a goroutine; see
// bridge.h for how that reads and writes.
package jimu

// #cgo CFLAGS: -I${SRCDIR} -I${SRCDIR}/../../../../worker-api/include
// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"unsafe"
)

// Serve sets the handler. Call it from an init function.
func Serve(handler http.Handler) {
	Create(func() (http.Handler, error) { return handler, nil })
}

// Create sets the function that creates the handler when a worker starts. If it returns an error, the worker does not
// start: a server that starts exits with status 4, one that reloads keeps its old workers.
func Create(create func() (http.Handler, error)) {
	creator = create
}

var creator func() (http.Handler, error)

// jimuCreate starts to serve the requests that are announced by the pipe; it returns the reason if it cannot.
//
//export jimuCreate
func jimuCreate(pipe C.int) *C.char {
	if creator == nil {
		return C.CString("no handler: call jimu.Serve from an init function")
	}
	handler, err := creator()
	if err == nil && handler == nil {
		err = errors.New("no handler was created")
	}
	if err != nil {
		return C.CString(strings.ReplaceAll(err.Error(), "\n", " "))
	}
	go receive(os.NewFile(uintptr(pipe), "requests"), handler)
	return nil
}

// receive starts handlers, and passes on what the worker's threads send to those that run.
func receive(pipe *os.File, handler http.Handler) {
	const size = int(unsafe.Sizeof(C.bridge_message{}))
	requests := make(map[*C.bridge_slot]*exchange)
	buffer := make([]byte, 64*size)
	for filled := 0; ; {
		count, err := pipe.Read(buffer[filled:])
		if err != nil {
			logLine(C.JIMU_LOG_CRITICAL, "requests cannot be received: "+err.Error())
			return
		}
		filled += count
		at := 0
		for ; at+size <= filled; at += size {
			message := *(*C.bridge_message)(unsafe.Pointer(&buffer[at]))
			dispatch(requests, message, handler)
		}
		filled = copy(buffer, buffer[at:filled])
	}
}

func dispatch(requests map[*C.bridge_slot]*exchange, message C.bridge_message, handler http.Handler) {
	running := requests[message.slot]
	switch message.kind {
	case C.BRIDGE_START:
		started := newExchange(message.slot, message.serial)
		requests[message.slot] = started
		go started.serve(handler)
	case C.BRIDGE_DONE:
		running.done <- struct{}{}
	case C.BRIDGE_GONE:
		// It may be late, and about an earlier request.
		if running.serial == message.serial {
			running.cancel()
		}
	case C.BRIDGE_ABANDONED:
		close(running.abandoned)
		running.cancel()
	}
}

// ask has the worker's thread carry out an operation, and waits for it.
func (x *exchange) ask(operation C.int) error {
	if !C.bridge_ask(x.slot, operation) {
		return errAbandoned
	}
	select {
	case <-x.done:
	case <-x.abandoned:
		return errAbandoned
	}
	if x.slot.result != C.JIMU_OK {
		failure := &x.slot.failure
		text := C.GoStringN(&failure.text[0], C.int(failure.length))
		if failure.kind == C.JIMU_FAILURE_TOO_LARGE {
			return &http.MaxBytesError{}
		}
		return errors.New(text)
	}
	return nil
}

var errAbandoned = errors.New("jimu: the request was ended by the server")

// read reads a part of the request's body.
func (x *exchange) read(to []byte) (int, error) {
	if len(to) == 0 {
		return 0, nil
	}
	x.mutex.Lock()
	defer x.mutex.Unlock()
	if x.ended {
		return 0, http.ErrBodyReadAfterClose
	}
	x.slot.wanted = C.size_t(len(to))
	if len(to) > C.BRIDGE_ROOM {
		x.slot.wanted = C.BRIDGE_ROOM
	}
	if err := x.ask(C.BRIDGE_READ); err != nil {
		return 0, err
	}
	if x.slot.done == 0 {
		return 0, io.EOF
	}
	return copy(to, unsafe.Slice((*byte)(&x.slot.in[0]), int(x.slot.done))), nil
}

// room returns the free part of the response's buffer.
func (x *exchange) room() []byte {
	return unsafe.Slice((*byte)(&x.slot.out[0]), C.BRIDGE_ROOM)[x.slot.filled:]
}

// setHead encodes headers for the next operation.
func (x *exchange) setHead(status int, header http.Header) error {
	length, count := 0, 0
	for name, values := range header {
		for _, value := range values {
			length += 8 + len(name) + len(value)
			count++
		}
	}
	place := C.bridge_head(x.slot, C.size_t(length), C.int32_t(count))
	if place == nil {
		return errors.New("out of memory")
	}
	x.slot.status = C.uint16_t(status)
	to := unsafe.Slice((*byte)(unsafe.Pointer(place)), length)
	for name, values := range header {
		for _, value := range values {
			to = putText(to, name)
			to = putText(to, lineBreaks.Replace(value))
		}
	}
	return nil
}

// lineBreaks is what net/http does with them in values.
var lineBreaks = strings.NewReplacer("\n", " ", "\r", " ")

func putText(to []byte, text string) []byte {
	*(*uint32)(unsafe.Pointer(&to[0])) = uint32(len(text))
	return to[4+copy(to[4:], text):]
}

// fail ends the request with an error response, or cuts the connection if a part of a response has been sent.
func (x *exchange) fail(kind C.uint8_t, status int, reason string) {
	text := C.CString(reason)
	defer C.free(unsafe.Pointer(text))
	x.slot.filled = 0
	C.bridge_fail(x.slot, kind, C.uint16_t(status), text, C.size_t(len(reason)))
	C.bridge_ask(x.slot, C.BRIDGE_FAIL)
}

func logLine(level C.uint8_t, line string) {
	text := C.CString(line)
	defer C.free(unsafe.Pointer(text))
	C.bridge_log(level, text, C.size_t(len(line)))
}

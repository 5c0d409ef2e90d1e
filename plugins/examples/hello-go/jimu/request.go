package jimu

// #include "bridge.h"
import "C"

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"unsafe"
)

// newRequest makes an http.Request of the copy in the slot.
func newRequest(x *exchange) (*http.Request, error) {
	slot := x.slot
	texts := texts{C.GoStringN(slot.request.data, C.int(slot.request.length))}
	method, target, authority := texts.next(), texts.next(), texts.next()
	peer, local := texts.next(), texts.next()
	session := session{texts.next(), texts.next(), texts.next(), texts.next()}
	header := make(http.Header, int(slot.header_count))
	for count := int(slot.header_count); count > 0; count-- {
		name := http.CanonicalHeaderKey(texts.next())
		header[name] = append(header[name], texts.next())
	}
	// net/http has it in Request.Host only.
	delete(header, "Host")
	location, err := parseTarget(method, target)
	if err != nil {
		return nil, err
	}
	major, minor := int(slot.version)/10, int(slot.version)%10
	request := &http.Request{
		Method: method, URL: location, RequestURI: target, Host: authority, Header: header,
		Proto:      "HTTP/" + strconv.Itoa(major) + "." + strconv.Itoa(minor),
		ProtoMajor: major, ProtoMinor: minor,
		ContentLength: int64(slot.content_length),
		Body:          http.NoBody,
		RemoteAddr:    address(peer, int(slot.peer_port)),
	}
	if slot.content_length != 0 {
		request.Body = &body{x}
	}
	if slot.content_length == C.JIMU_LENGTH_UNKNOWN && major == 1 {
		request.TransferEncoding = []string{"chunked"}
	}
	if slot.has_tls {
		request.TLS = session.state()
	}
	if port := int(slot.local_port); port != 0 {
		endpoint := &net.TCPAddr{IP: net.ParseIP(local), Port: port}
		x.context = context.WithValue(x.context, http.LocalAddrContextKey, net.Addr(endpoint))
	}
	return request.WithContext(x.context), nil
}

func parseTarget(method, target string) (*url.URL, error) {
	// RFC 9110 9.3.6: CONNECT has only an authority.
	if method == http.MethodConnect && len(target) > 0 && target[0] != '/' {
		location, err := url.ParseRequestURI("http://" + target)
		if location != nil {
			location.Scheme = ""
		}
		return location, err
	}
	return url.ParseRequestURI(target)
}

// address is empty for a unix socket, as net/http has "@" or nothing for it.
func address(host string, port int) string {
	if port == 0 {
		return host
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// texts are the parts of a request, each behind its length.
type texts struct{ rest string }

func (t *texts) next() string {
	length := *(*uint32)(unsafe.Pointer(unsafeStart(t.rest)))
	text := t.rest[4 : 4+length]
	t.rest = t.rest[4+length:]
	return text
}

// unsafeStart returns the address of a text's first byte.
func unsafeStart(text string) *byte {
	return *(**byte)(unsafe.Pointer(&text))
}

// session is what the server reports of a TLS session.
type session struct{ protocol, cipher, serverName, certificate string }

func (s session) state() *tls.ConnectionState {
	state := &tls.ConnectionState{HandshakeComplete: true, ServerName: s.serverName}
	switch s.protocol {
	case "TLSv1.2":
		state.Version = tls.VersionTLS12
	case "TLSv1.3":
		state.Version = tls.VersionTLS13
	}
	for _, suite := range tls.CipherSuites() {
		if suite.Name == s.cipher {
			state.CipherSuite = suite.ID
		}
	}
	if certificate, err := x509.ParseCertificate([]byte(s.certificate)); err == nil {
		state.PeerCertificates = []*x509.Certificate{certificate}
	}
	return state
}

// body is the body of a request, as it arrives.
type body struct{ of *exchange }

var _ io.ReadCloser = (*body)(nil)

func (b *body) Read(to []byte) (int, error) { return b.of.read(to) }

// Close leaves the rest to the server, which reads or refuses it.
func (b *body) Close() error { return nil }

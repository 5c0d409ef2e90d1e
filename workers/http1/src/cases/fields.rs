//! Names and values of headers, and the headers that the server interprets.

use super::End::{Closed, Idle, Refused};
use super::table::{Case, Expect, cases, field, post, request};

pub(super) const CASES: &[Case] = cases! {
    "9110 5.1, 5.5", [request("GET", "")], Idle => {
        "an empty value": field!("X:"),
        "a value of white space": field!("X: \t "),
        "no white space before the value": field!("X:y"),
        "white space around the value": field!("X: \t y \t "),
        "white space within the value": field!("X: a \t b"),
        "colons in the value": field!("X: a:b::c"),
        "quotes in the value": field!("X: \"a\\\"b\""),
        "8-bit bytes in the value": b"GET / HTTP/1.1\r\nHost: a\r\nX: \x80\xff\xe9\r\n\r\n",
        "UTF-8 in the value": field!("X: é"),
        "all that a name may have": field!("!#$%&'*+-.^`|~09azAZ: x"),
        "a name of one character": field!("x: y"),
        "a name that begins with a digit": field!("0: y"),
        "the same field twice": field!("X: a\r\nX: b"),
        "a field that looks like a request": field!("GET: / HTTP/1.1"),
        "90 fields": b"GET / HTTP/1.1\r\nHost: a\r\n\
            A:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\
            A:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\
            A:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\
            A:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\
            A:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\
            A:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\r\n",
    }
    "9112 5.1", [], Refused(400) => {
        "a space before the colon": field!("X : y"),
        "a tab before the colon": field!("X\t: y"),
        "a space before the colon of Content-Length": field!("Content-Length : 0"),
        "a space before the colon of Host": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "a space before the colon of Transfer-Encoding": field!("Transfer-Encoding : chunked"),
        "no colon": field!("X"),
        "no colon but a value": field!("X y"),
        "no name": field!(": y"),
        "neither name nor value": field!(":"),
    }
    "9112 2.2", [], Refused(400) => {
        "white space before the first field": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "a tab before the first field": b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n",
        "a line of white space before the first field": b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n",
    }
    "9112 5.2", [], Refused(400) => {
        "a folded value": field!("X: y\r\n z"),
        "a value folded with a tab": field!("X: y\r\n\tz"),
        "a value that begins on the next line": field!("X:\r\n y"),
        "a folded line of nothing": field!("X: y\r\n "),
        "a folded transfer coding": field!("Transfer-Encoding:\r\n chunked"),
        "a transfer coding folded into another": field!("Transfer-Encoding: chunked\r\n , identity"),
        "a folded length": field!("Content-Length: 1\r\n 0"),
        "a folded Host": b"GET / HTTP/1.1\r\nHost: a\r\n .b\r\n\r\n",
    }
    "9110 5.6.2", [], Refused(400) => {
        "NUL in a name": field!("X\0Y: z"),
        "a space in a name": field!("X Y: z"),
        "parenthesis in a name": field!("X(Y: z"),
        "brackets in a name": field!("X[Y]: z"),
        "an at in a name": field!("X@Y: z"),
        "a quote in a name": field!("\"X\": z"),
        "an equals sign in a name": field!("X=Y: z"),
        "a slash in a name": field!("X/Y: z"),
        "a semicolon in a name": field!("X;Y: z"),
        "a comma in a name": field!("X,Y: z"),
        "a less-than sign in a name": field!("<X>: z"),
        "a question mark in a name": field!("X?: z"),
        "a backslash in a name": field!("X\\: z"),
        "braces in a name": field!("{X}: z"),
        "DEL in a name": field!("X\x7f: z"),
        "a control character in a name": field!("X\x01: z"),
        "CR in a name": field!("X\rY: z"),
        "LF in a name": field!("X\nY: z"),
        "UTF-8 in a name": field!("Content-Lengthß: 3"),
        "latin-1 in a name": b"GET / HTTP/1.1\r\nHost: a\r\nX\xff: z\r\n\r\n",
        "a no-break space after a name": field!("Content-Length\u{a0}: 3"),
    }
    "9110 5.5", [], Refused(400) => {
        "NUL in a value": field!("X: a\0b"),
        "CR in a value": field!("X: a\rb"),
        "CR at the end of a value": field!("X: a\r"),
        "LF in a value": field!("X: a\nb"),
        "a line end by LF, then a field": field!("X: a\nContent-Length: 5"),
        "a line end by CR, then a field": field!("X: a\rContent-Length: 5"),
        "BEL in a value": field!("X: a\x07b"),
        "a vertical tab in a value": field!("X: a\x0bb"),
        "a form feed in a value": field!("X: a\x0cb"),
        "ESC in a value": field!("X: a\x1bb"),
        "DEL in a value": field!("X: a\x7fb"),
        "NUL as a value": field!("X: \0"),
        "a vertical tab before a value": field!("X:\x0ba"),
    }
    "9112 2.2", [], Refused(400) => {
        "LF alone after a field": b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        "LF alone after the last field": b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        "LF alone for the empty line": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        "LF twice": b"GET / HTTP/1.1\r\nHost: a\n\n",
        "CR CR LF after a field": b"GET / HTTP/1.1\r\nHost: a\r\r\nX: y\r\n\r\n",
        "LF CR after a field": b"GET / HTTP/1.1\r\nHost: a\n\rX: y\r\n\r\n",
        "CR alone for the empty line": b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n",
    }
    "9110 17.10", [request("GET", "")], Idle => {
        "an underscore for a hyphen in a length": field!("Content_Length: 5"),
        "an underscore for a hyphen in a transfer coding": field!("Transfer_Encoding: chunked"),
        "an underscore for a hyphen in a forwarding field": field!("X_Forwarded_For: 10.0.0.1"),
        "underscores only": field!("__: x"),
        "a field that would become HTTP_PROXY": field!("Proxy: http://evil/"),
    }
    "9110 5.3", [], Refused(400) => {
        "two Content-Types": field!("Content-Type: a/b\r\nContent-Type: c/d"),
    }
    "9110 7.6.1, 9112 9.6", [request("GET", "")], Closed => {
        "close": field!("Connection: close"),
        "close in upper case": field!("Connection: CLOSE"),
        "keep-alive and close": field!("Connection: keep-alive, close"),
        "close and keep-alive": field!("Connection: close, keep-alive"),
        "close on a second line": field!("Connection: keep-alive\r\nConnection: close"),
        "close among others": field!("Connection: x ,,\tclose\t, y"),
        "an option that is no token": field!("Connection: clo se"),
        "close with a parameter": field!("Connection: close;x"),
        "close in quotes": field!("Connection: \"close\""),
        "what follows a close is no request": field!("Connection: close\r\n\r\nGET / HTTP/1.1\r\nHost: a"),
        "HTTP/1.0 without keep-alive": b"GET / HTTP/1.0\r\nHost: a\r\n\r\nGET / HTTP/1.0\r\nHost: a\r\n\r\n",
        "HTTP/1.0 with another option": b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keepalive\r\n\r\n",
        "HTTP/1.0 with keep-alive and close": b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n",
    }
    "9112 9.3", [request("GET", "")], Idle => {
        "keep-alive in HTTP/1.1": field!("Connection: keep-alive"),
        "an empty Connection": field!("Connection:"),
        "commas only": field!("Connection: , ,"),
        "another option": field!("Connection: closed"),
        "an option for another hop": field!("Connection: TE\r\nTE: trailers"),
        "HTTP/1.0 with keep-alive": b"GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n",
        "Proxy-Connection means nothing": field!("Proxy-Connection: close"),
        "Keep-Alive means nothing": field!("Keep-Alive: timeout=0"),
    }
    "9110 7.8", [request("GET", "")], Idle => {
        "an offer to upgrade": field!("Connection: Upgrade\r\nUpgrade: websocket"),
        "an offer to speak HTTP/2": field!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA"),
        "upgrade without what to": field!("Connection: upgrade"),
    }
    "9110 10.1.1", [request("POST", "hello")], Idle => {
        "100-continue": post!("Expect: 100-continue\r\nContent-Length: 5", "hello"),
        "100-continue in upper case": post!("Expect: 100-CONTINUE\r\nContent-Length: 5", "hello"),
        "100-continue twice": post!("Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5", "hello"),
    }
    "9110 10.1.1", [request("GET", "")], Idle => {
        "100-continue without a body": field!("Expect: 100-continue"),
    }
    "9110 10.1.1", [request("GET", "")], Closed => {
        "100-continue in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
    }
    "9110 10.1.1", [], Refused(417) => {
        "an unknown expectation": field!("Expect: 200-ok"),
        "an empty expectation": field!("Expect:"),
        "a garbled expectation": field!("Expect: 100-continued"),
        "a known and an unknown expectation": field!("Expect: 100-continue, x"),
        "an unknown expectation on a second line": field!("Expect: 100-continue\r\nExpect: x"),
        "an expectation with a parameter": field!("Expect: 100-continue;q=1"),
        "an unknown expectation with a body": post!("Expect: x\r\nContent-Length: 5", "hello"),
    }
};

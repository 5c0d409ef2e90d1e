//! Request lines, targets and hosts.

use super::End::{Closed, Idle, InHead, Refused};
use super::table::{Case, Expect, Request, cases, field, first, get, request};

pub(super) const CASES: &[Case] = cases! {
    "9112 3, 9110 9.1", [request("GET", "")], Idle => {
        "a plain request": first!("GET / HTTP/1.1"),
        "one empty line before": first!("\r\nGET / HTTP/1.1"),
    }
    "9110 9", [request("HEAD", "")], Idle => { "HEAD": first!("HEAD / HTTP/1.1"), }
    "9110 9", [request("PUT", "")], Idle => { "PUT without a body": first!("PUT / HTTP/1.1"), }
    "9110 9", [request("DELETE", "")], Idle => { "DELETE": first!("DELETE / HTTP/1.1"), }
    "9110 9", [request("TRACE", "")], Idle => { "TRACE": first!("TRACE / HTTP/1.1"), }
    "9110 9.1", [request("M-SEARCH", "")], Idle => {
        "a method that is registered elsewhere": first!("M-SEARCH / HTTP/1.1"),
    }
    "9110 9.1", [request("PURGE!", "")], Idle => {
        "a method with another character of tokens": first!("PURGE! / HTTP/1.1"),
    }
    "9110 9.1", [request("ABCDEFGHIJKLMNOPQRST", "")], Idle => {
        "a method of 20 letters": first!("ABCDEFGHIJKLMNOPQRST / HTTP/1.1"),
    }
    "9110 9.1 and gunicorn", [], Refused(405) => {
        "a method in lower case": first!("get / HTTP/1.1"),
        "a method in mixed case": first!("Get / HTTP/1.1"),
        "a method of one letter": first!("G / HTTP/1.1"),
        "a method of two letters": first!("GE / HTTP/1.1"),
        "a method of 21 letters": first!("ABCDEFGHIJKLMNOPQRSTU / HTTP/1.1"),
        "a method with a hash": first!("GE#T / HTTP/1.1"),
    }
    "9110 5.6.2, 9112 3", [], Refused(400) => {
        "parenthesis in the method": first!("G(T / HTTP/1.1"),
        "at in the method": first!("G@T / HTTP/1.1"),
        "colon in the method": first!("GET: / HTTP/1.1"),
        "comma in the method": first!("GET,PUT / HTTP/1.1"),
        "quote in the method": first!("\"GET\" / HTTP/1.1"),
        "slash in the method": first!("GE/T / HTTP/1.1"),
        "brackets in the method": first!("[GET] / HTTP/1.1"),
        "brace in the method": first!("GE{T / HTTP/1.1"),
        "equals sign in the method": first!("GE=T / HTTP/1.1"),
        "question mark in the method": first!("GE?T / HTTP/1.1"),
        "backslash in the method": first!("GE\\T / HTTP/1.1"),
        "semicolon in the method": first!("GE;T / HTTP/1.1"),
        "less-than sign in the method": first!("GE<T / HTTP/1.1"),
        "NUL in the method": first!("GE\0T / HTTP/1.1"),
        "DEL in the method": first!("GE\x7fT / HTTP/1.1"),
        "CR in the method": first!("GE\rT / HTTP/1.1"),
        "tab in the method": first!("GE\tT / HTTP/1.1"),
        "8-bit bytes in the method": first!("GETé / HTTP/1.1"),
        "no method": first!(" / HTTP/1.1"),
        "a space before the method": first!(" GET / HTTP/1.1"),
        "a tab before the method": first!("\tGET / HTTP/1.1"),
        "a byte order mark before the method": first!("\u{feff}GET / HTTP/1.1"),
        "NUL before the method": first!("\0GET / HTTP/1.1"),
        "CR alone before the method": first!("\rGET / HTTP/1.1"),
        "LF alone before the method": first!("\nGET / HTTP/1.1"),
        "two empty lines before": first!("\r\n\r\nGET / HTTP/1.1"),
        "many empty lines before": first!("\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1"),
    }
    "9112 3", [], Refused(400) => {
        "nothing but a method": first!("GET"),
        "a method and a space": first!("GET "),
        "no target": first!("GET HTTP/1.1"),
        "an empty target": first!("GET  HTTP/1.1"),
        "two spaces before the target": first!("GET  / HTTP/1.1"),
        "two spaces before the version": first!("GET /  HTTP/1.1"),
        "a space in the target": first!("GET /a b HTTP/1.1"),
        "tabs for spaces": first!("GET\t/\tHTTP/1.1"),
        "a tab before the version": first!("GET /\tHTTP/1.1"),
        "a space after the version": first!("GET / HTTP/1.1 "),
        "a tab after the version": first!("GET / HTTP/1.1\t"),
        "something after the version": first!("GET / HTTP/1.1 x"),
        "vertical tabs for spaces": first!("GET\x0b/\x0bHTTP/1.1"),
        "HTTP/0.9": b"GET /\r\n",
        "a line end within the line": first!("GET /\r\nHTTP/1.1"),
        "LF alone after the line": b"GET / HTTP/1.1\nHost: a\n\n",
        "LF alone after the line only": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        "CR alone after the line": b"GET / HTTP/1.1\rHost: a\r\n\r\n",
        "two CR at the end of the line": first!("GET / HTTP/1.1\r"),
    }
    "9112 2.3", [request("GET", "")], Idle => {
        "HTTP/1.2 is treated as 1.1": first!("GET / HTTP/1.2"),
        "HTTP/1.9 is treated as 1.1": first!("GET / HTTP/1.9"),
    }
    "9112 2.3", [request("GET", "")], Closed => { "HTTP/1.0": first!("GET / HTTP/1.0"), }
    "9112 2.3", [], Refused(400) => {
        "the protocol in lower case": first!("GET / http/1.1"),
        "the protocol in mixed case": first!("GET / Http/1.1"),
        "another protocol": first!("GET / FTP/1.1"),
        "the protocol of secure HTTP": first!("GET / HTTPS/1.1"),
        "no version": first!("GET / HTTP/"),
        "no slash": first!("GET / HTTP 1.1"),
        "no minor version": first!("GET / HTTP/1"),
        "an empty minor version": first!("GET / HTTP/1."),
        "no major version": first!("GET / HTTP/.1"),
        "two digits of minor version": first!("GET / HTTP/1.10"),
        "a zero before the major version": first!("GET / HTTP/01.1"),
        "a zero before the minor version": first!("GET / HTTP/1.01"),
        "three parts of version": first!("GET / HTTP/1.1.1"),
        "a negative version": first!("GET / HTTP/-1.1"),
        "a signed minor version": first!("GET / HTTP/1.+1"),
        "a version beyond 32 bits": first!("GET / HTTP/4294967297.1"),
        "a comma in the version": first!("GET / HTTP/1,1"),
        "three digits without a dot": first!("GET / HTTP/111"),
        "hexadecimal digits": first!("GET / HTTP/1.a"),
        "other digits than ASCII's": first!("GET / HTTP/1.\u{661}"),
    }
    "9110 15.6.6", [], Refused(505) => {
        "HTTP/2.0": first!("GET / HTTP/2.0"),
        "HTTP/3.0": first!("GET / HTTP/3.0"),
        "HTTP/0.9 as a version": first!("GET / HTTP/0.9"),
        "HTTP/9.9": first!("GET / HTTP/9.9"),
        "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    }
    "9112 3", [], Refused(400) => {
        "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "an SSH greeting": b"SSH-2.0-OpenSSH_9.2\r\n",
        "a reply": b"HTTP/1.1 200 OK\r\n\r\n",
        "garbage": b"\xde\xad\xbe\xef\r\n\r\n",
        "a PROXY line where none is expected": b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\nGET / HTTP/1.1\r\n",
    }
    "9112 3.2.1", [get("/a/b?c=d&e", "a")], Idle => { "path and query": first!("GET /a/b?c=d&e HTTP/1.1"), }
    "9112 3.2.1", [get("//b/c", "a")], Idle => {
        "two slashes name no authority here": first!("GET //b/c HTTP/1.1"),
    }
    "9112 3.2.1", [get("/?", "a")], Idle => { "an empty query": first!("GET /? HTTP/1.1"), }
    "3986 3.4", [get("/?a?b/c", "a")], Idle => { "a query with a question mark": first!("GET /?a?b/c HTTP/1.1"), }
    "3986 3.5 and gunicorn", [get("/a?b#c", "a")], Idle => { "a fragment": first!("GET /a?b#c HTTP/1.1"), }
    "gunicorn", [get("/\"<>\\^`{|}", "a")], Idle => {
        "visible characters that no URI has": first!("GET /\"<>\\^`{|} HTTP/1.1"),
    }
    "3986 2.1", [get("/%41%zz%", "a")], Idle => {
        "percent-encoding is the application's affair": first!("GET /%41%zz% HTTP/1.1"),
    }
    "3986 6.2.2.3", [get("/../a/./b", "a")], Idle => { "dots are not resolved": first!("GET /../a/./b HTTP/1.1"), }
    "9112 3.2", [], Refused(400) => {
        "NUL in the target": first!("GET /\0 HTTP/1.1"),
        "CR in the target": first!("GET /a\rb HTTP/1.1"),
        "DEL in the target": first!("GET /\x7f HTTP/1.1"),
        "a control character in the target": first!("GET /\x01 HTTP/1.1"),
        "UTF-8 in the target": first!("GET /é HTTP/1.1"),
        "latin-1 in the target": b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n",
        "a relative target": first!("GET a/b HTTP/1.1"),
        "a relative query": first!("GET ?a HTTP/1.1"),
        "a fragment only": first!("GET #a HTTP/1.1"),
        "a dot": first!("GET . HTTP/1.1"),
        "a backslash": first!("GET \\ HTTP/1.1"),
        "an encoded slash": first!("GET %2f HTTP/1.1"),
    }
    "9112 3.2.4", [Request { method: "OPTIONS", target: "*", authority: "a", body: "" }], Idle => {
        "OPTIONS for the whole server": first!("OPTIONS * HTTP/1.1"),
    }
    "9112 3.2.4", [], Refused(400) => {
        "an asterisk with GET": first!("GET * HTTP/1.1"),
        "an asterisk with POST": first!("POST * HTTP/1.1"),
        "an asterisk and more": first!("OPTIONS ** HTTP/1.1"),
        "an asterisk with a query": first!("OPTIONS *?a HTTP/1.1"),
    }
    "9112 3.2.2", [get("http://b/c?d", "b")], Idle => {
        "the authority of an absolute target": first!("GET http://b/c?d HTTP/1.1"),
    }
    "9112 3.2.2", [get("http://b:8080", "b:8080")], Idle => {
        "an absolute target without a path": first!("GET http://b:8080 HTTP/1.1"),
    }
    "9112 3.2.2", [get("http://b?c", "b")], Idle => {
        "an absolute target with a query only": first!("GET http://b?c HTTP/1.1"),
    }
    "9112 3.2.2", [get("HTTP://b/", "b")], Idle => { "a scheme in upper case": first!("GET HTTP://b/ HTTP/1.1"), }
    "9112 3.2.2", [get("https://b/", "b")], Idle => {
        "an https target (over what, the connection knows)": first!("GET https://b/ HTTP/1.1"),
    }
    "9112 3.2.2", [get("http://[::1]:80/", "[::1]:80")], Idle => {
        "an absolute target with an IPv6 address": first!("GET http://[::1]:80/ HTTP/1.1"),
    }
    "9112 3.2.2", [get("http://b/http://c/", "b")], Idle => {
        "a URI in the path": first!("GET http://b/http://c/ HTTP/1.1"),
    }
    "9110 4.2", [], Refused(400) => {
        "user information": first!("GET http://user@b/ HTTP/1.1"),
        "user and password": first!("GET http://user:secret@b/ HTTP/1.1"),
        "no authority": first!("GET http:///a HTTP/1.1"),
        "a port without a host": first!("GET http://:80/ HTTP/1.1"),
        "an absolute target with a malformed port": first!("GET http://b:8a/ HTTP/1.1"),
        "an absolute target with a port beyond bounds": first!("GET http://b:65536/ HTTP/1.1"),
        "an absolute target with an open bracket": first!("GET http://[::1/ HTTP/1.1"),
        "a backslash in the authority": first!("GET http://b\\c/ HTTP/1.1"),
        "one slash": first!("GET http:/a HTTP/1.1"),
        "no slash at all": first!("GET http:a HTTP/1.1"),
        "no scheme": first!("GET ://b/ HTTP/1.1"),
        "a scheme that begins with a digit": first!("GET 1http://b/ HTTP/1.1"),
        "a scheme with an underscore": first!("GET ht_tp://b/ HTTP/1.1"),
    }
    "9110 15.5.20", [], Refused(421) => {
        "the scheme of another protocol": first!("GET ftp://b/ HTTP/1.1"),
        "the scheme of web sockets": first!("GET ws://b/ HTTP/1.1"),
    }
    "9112 3.2.3", [Request { method: "CONNECT", target: "b:443", authority: "b:443", body: "" }], Closed => {
        "CONNECT": first!("CONNECT b:443 HTTP/1.1"),
        "what follows a CONNECT is no request": first!("CONNECT b:443 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1"),
    }
    "9112 3.2.3", [Request { method: "CONNECT", target: "[::1]:443", authority: "[::1]:443", body: "" }], Closed => {
        "CONNECT to an IPv6 address": first!("CONNECT [::1]:443 HTTP/1.1"),
    }
    "9110 9.3.6", [], Refused(400) => {
        "CONNECT without a port": first!("CONNECT b HTTP/1.1"),
        "CONNECT with an empty port": first!("CONNECT b: HTTP/1.1"),
        "CONNECT without a host": first!("CONNECT :443 HTTP/1.1"),
        "CONNECT with a path": first!("CONNECT /a HTTP/1.1"),
        "CONNECT with an absolute target": first!("CONNECT http://b/ HTTP/1.1"),
        "CONNECT with an asterisk": first!("CONNECT * HTTP/1.1"),
        "CONNECT with user information": first!("CONNECT user@b:443 HTTP/1.1"),
        "CONNECT with a port beyond bounds": first!("CONNECT b:99999 HTTP/1.1"),
        "an authority with GET": first!("GET b:443 HTTP/1.1"),
        "an authority with OPTIONS": first!("OPTIONS b:443 HTTP/1.1"),
    }
    "9110 7.2, 3986 3.2.2", [get("/", "b.example:8080")], Idle => {
        "a host with a port": b"GET / HTTP/1.1\r\nHost: b.example:8080\r\n\r\n",
        "white space around the host": b"GET / HTTP/1.1\r\nHost: \t b.example:8080 \t\r\n\r\n",
        "no white space before the host": b"GET / HTTP/1.1\r\nHost:b.example:8080\r\n\r\n",
        "the name in lower case": b"GET / HTTP/1.1\r\nhost: b.example:8080\r\n\r\n",
        "the name in upper case": b"GET / HTTP/1.1\r\nHOST: b.example:8080\r\n\r\n",
    }
    "9112 3.2", [get("/", "")], Idle => { "an empty Host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n", }
    "3986 3.2.3", [get("/", "b:")], Idle => { "an empty port": b"GET / HTTP/1.1\r\nHost: b:\r\n\r\n", }
    "3986 3.2.2", [get("/", "[::1]")], Idle => { "an IPv6 address": b"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n", }
    "3986 3.2.2", [get("/", "[::1]:8000")], Idle => {
        "an IPv6 address with a port": b"GET / HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n",
    }
    "3986 3.2.2", [get("/", "[v1.a:b]")], Idle => {
        "an address of a version to come": b"GET / HTTP/1.1\r\nHost: [v1.a:b]\r\n\r\n",
    }
    "3986 3.2.2", [get("/", "127.0.0.1:65535")], Idle => {
        "an IPv4 address and the last port": b"GET / HTTP/1.1\r\nHost: 127.0.0.1:65535\r\n\r\n",
    }
    "3986 3.2.2", [get("/", "a_b-c~d%41!$&'()*+,;=")], Idle => {
        "all that a name may have": b"GET / HTTP/1.1\r\nHost: a_b-c~d%41!$&'()*+,;=\r\n\r\n",
    }
    "9112 3.2", [Request { method: "GET", target: "/", authority: "", body: "" }], Closed => {
        "HTTP/1.0 without Host": b"GET / HTTP/1.0\r\n\r\n",
    }
    "9112 3.2", [], Refused(400) => {
        "no Host": b"GET / HTTP/1.1\r\n\r\n",
        "no Host among other fields": b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n",
        "no Host with an absolute target": b"GET http://b/ HTTP/1.1\r\n\r\n",
        "two different Hosts": field!("Host: b"),
        "two equal Hosts": field!("Host: a"),
        "two Hosts, one in another case": field!("hOsT: a"),
        "two Hosts in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        "a malformed Host in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a/b\r\n\r\n",
        "a malformed Host with an absolute target": b"GET http://b/ HTTP/1.1\r\nHost: a b\r\n\r\n",
        "a space in Host": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "a slash in Host": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "an at in Host": b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
        "a question mark in Host": b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n",
        "a hash in Host": b"GET / HTTP/1.1\r\nHost: a#b\r\n\r\n",
        "a backslash in Host": b"GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n",
        "a less-than sign in Host": b"GET / HTTP/1.1\r\nHost: a<b\r\n\r\n",
        "a quote in Host": b"GET / HTTP/1.1\r\nHost: \"a\"\r\n\r\n",
        "a pipe in Host": b"GET / HTTP/1.1\r\nHost: a|b\r\n\r\n",
        "a caret in Host": b"GET / HTTP/1.1\r\nHost: a^b\r\n\r\n",
        "braces in Host": b"GET / HTTP/1.1\r\nHost: {a}\r\n\r\n",
        "NUL in Host": b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
        "a tab in Host": b"GET / HTTP/1.1\r\nHost: a\tb\r\n\r\n",
        "8-bit bytes in Host": b"GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n",
        "an incomplete escape in Host": b"GET / HTTP/1.1\r\nHost: a%4\r\n\r\n",
        "a wrong escape in Host": b"GET / HTTP/1.1\r\nHost: a%zz\r\n\r\n",
        "letters in the port": b"GET / HTTP/1.1\r\nHost: a:8a\r\n\r\n",
        "a signed port": b"GET / HTTP/1.1\r\nHost: a:+80\r\n\r\n",
        "a negative port": b"GET / HTTP/1.1\r\nHost: a:-1\r\n\r\n",
        "a port beyond bounds": b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n",
        "a port beyond 32 bits": b"GET / HTTP/1.1\r\nHost: a:4294967376\r\n\r\n",
        "two ports": b"GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n",
        "a space before the port": b"GET / HTTP/1.1\r\nHost: a :80\r\n\r\n",
        "an IPv6 address without brackets": b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n",
        "an open bracket": b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        "something after the bracket": b"GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n",
        "empty brackets": b"GET / HTTP/1.1\r\nHost: []\r\n\r\n",
        "no IPv6 address in brackets": b"GET / HTTP/1.1\r\nHost: [1.2.3.4]\r\n\r\n",
        "a zone in brackets": b"GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n",
        "a URI in Host": b"GET / HTTP/1.1\r\nHost: http://a/\r\n\r\n",
    }
    "9112 2.2", [], InHead => {
        "half a request line": b"GET / HT",
        "a request line without an end": b"GET / HTTP/1.1",
        "a request line with half an end": b"GET / HTTP/1.1\r",
        "no empty line": b"GET / HTTP/1.1\r\nHost: a\r\n",
        "half an empty line": b"GET / HTTP/1.1\r\nHost: a\r\n\r",
        "half an empty line before the request": b"\r",
    }
    "9112 2.2", [], Idle => { "nothing": b"", }
};

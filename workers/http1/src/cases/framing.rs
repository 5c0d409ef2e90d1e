//! Framing: Content-Length, Transfer-Encoding, and both; several requests in a row.

use super::End::{Closed, Idle, InBody, Refused};
use super::table::{Case, Expect, Request, cases, chunked, get, post, request};

pub(super) const CASES: &[Case] = cases! {
    "9112 6.3", [request("POST", "hello")], Idle => {
        "a length": post!("Content-Length: 5", "hello"),
        "a length in lower case": post!("content-length: 5", "hello"),
        "a length in mixed case": post!("conTENT-LengtH: 5", "hello"),
        "a length without white space": post!("Content-Length:5", "hello"),
        "a length with white space": post!("Content-Length: \t5\t ", "hello"),
        "a length with zeros": post!("Content-Length: 005", "hello"),
        "a length with many zeros": post!("Content-Length: 0000000000000000000000000000000000000005", "hello"),
    }
    "9110 8.6", [request("POST", "helloworld")], Idle => {
        "a length is decimal, not octal": post!("Content-Length: 010", "helloworld"),
    }
    "9112 6.3", [request("POST", "")], Idle => {
        "no length and no coding": post!("X: y", ""),
        "a length of none": post!("Content-Length: 0", ""),
        "a length of none, in many zeros": post!("Content-Length: 000", ""),
    }
    "9110 9.3.1", [request("GET", "hello")], Idle => { "a body of a GET": b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", }
    "9112 6.3", [request("POST", "hello")], Closed => {
        "a length in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    }
    "9112 6.3, 8", [], InBody => {
        "nothing of a body": post!("Content-Length: 5", ""),
        "a part of a body": post!("Content-Length: 5", "hell"),
        "a part of a large body": post!("Content-Length: 4294967301", "hello"),
        "a part of the largest body": post!("Content-Length: 9223372036854775807", "hello"),
        "a request for a body": post!("Content-Length: 50", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    }
    "9110 8.6", [], Refused(413) => {
        "a length of 2^63": post!("Content-Length: 9223372036854775808", "hello"),
        "a length of 2^64": post!("Content-Length: 18446744073709551616", ""),
        "a length of 2^64 + 5": post!("Content-Length: 18446744073709551621", "hello"),
        "a length of 40 digits": post!("Content-Length: 1000000000000000000000000000000000000005", "hello"),
        "the length -1 as unsigned": post!("Content-Length: 18446744073709551615", "hello"),
    }
    "9112 6.3, 9110 8.6", [], Refused(400) => {
        "a plus sign": post!("Content-Length: +5", "hello"),
        "a minus sign": post!("Content-Length: -5", "hello"),
        "minus zero": post!("Content-Length: -0", ""),
        "plus zero": post!("Content-Length: +0", ""),
        "a hexadecimal length": post!("Content-Length: 0x5", "hello"),
        "an octal length": post!("Content-Length: 0o5", "hello"),
        "an underscore between digits": post!("Content-Length: 1_0", "hello"),
        "a decimal point": post!("Content-Length: 5.0", "hello"),
        "an exponent": post!("Content-Length: 5e0", "hello"),
        "quotes": post!("Content-Length: \"5\"", "hello"),
        "a semicolon": post!("Content-Length: 5;", "hello"),
        "a parameter": post!("Content-Length: 5;x=y", "hello"),
        "letters after digits": post!("Content-Length: 5abc", "hello"),
        "letters before digits": post!("Content-Length: abc5", "hello"),
        "no digits": post!("Content-Length: abc", "hello"),
        "an empty length": post!("Content-Length:", "hello"),
        "a space between digits": post!("Content-Length: 1 0", "hello"),
        "a tab between digits": post!("Content-Length: 1\t0", "hello"),
        "a comma between digits": post!("Content-Length: 1,000", "hello"),
        "a vertical tab before": post!("Content-Length: \x0b5", "hello"),
        "a form feed after": post!("Content-Length: 5\x0c", "hello"),
        "a no-break space before": post!("Content-Length: \u{a0}5", "hello"),
        "a latin-1 no-break space after": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\xa0\r\n\r\nhello",
        "a superscript digit": post!("Content-Length: \u{b2}", "hello"),
        "a digit of another script": post!("Content-Length: \u{665}", "hello"),
        "NUL after the digits": post!("Content-Length: 5\0", "hello"),
        "the same length twice": post!("Content-Length: 5\r\nContent-Length: 5", "hello"),
        "two different lengths": post!("Content-Length: 5\r\nContent-Length: 6", "hello"),
        "two lengths, one of none": post!("Content-Length: 0\r\nContent-Length: 5", "hello"),
        "two lengths, one empty": post!("Content-Length: 5\r\nContent-Length:", "hello"),
        "two lengths in different case": post!("Content-Length: 5\r\ncontent-length: 5", "hello"),
        "a list of the same length": post!("Content-Length: 5, 5", "hello"),
        "a list of different lengths": post!("Content-Length: 5, 6", "hello"),
        "a list with an empty element": post!("Content-Length: 5,", "hello"),
        "a list with an empty element before": post!("Content-Length: ,5", "hello"),
    }
    "9112 6.1", [request("POST", "hello")], Idle => {
        "chunked": post!("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
        "chunked in upper case": post!("Transfer-Encoding: CHUNKED", "5\r\nhello\r\n0\r\n\r\n"),
        "chunked in mixed case": post!("Transfer-Encoding: ChUnKeD", "5\r\nhello\r\n0\r\n\r\n"),
        "the name in lower case": post!("transfer-encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
        "chunked with white space": post!("Transfer-Encoding:\t chunked \t", "5\r\nhello\r\n0\r\n\r\n"),
        "chunked without white space": post!("Transfer-Encoding:chunked", "5\r\nhello\r\n0\r\n\r\n"),
    }
    "9110 9.3.1", [request("GET", "hello")], Idle => {
        "a chunked body of a GET": b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    }
    "9112 6.1", [], Refused(400) => {
        "length and chunked": post!("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        "chunked and length": post!("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
        "a length of none and chunked": post!("Content-Length: 0\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        "length and an unknown coding": post!("Content-Length: 5\r\nTransfer-Encoding: x", "hello"),
        "length and identity": post!("Content-Length: 5\r\nTransfer-Encoding: identity", "hello"),
        "length and an empty coding": post!("Content-Length: 5\r\nTransfer-Encoding:", "hello"),
        "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "chunked in HTTP/1.0 kept alive":
            b"POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "length and chunked in HTTP/1.0":
            b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    }
    "9112 6.3", [], Refused(400) => {
        "chunked twice": post!("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"),
        "chunked on two lines": post!("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        "chunked, then gzip": post!("Transfer-Encoding: chunked, gzip", "0\r\n\r\n"),
        "chunked, then gzip on another line": post!("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip", "0\r\n\r\n"),
        "chunked, then identity": post!("Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
        "gzip on another line before": post!("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        "chunked between others": post!("Transfer-Encoding: gzip, chunked, gzip", "0\r\n\r\n"),
        "gzip alone": post!("Transfer-Encoding: gzip", "hello"),
        "deflate alone": post!("Transfer-Encoding: deflate", "hello"),
        "compress alone": post!("Transfer-Encoding: compress", "hello"),
        "identity alone": post!("Transfer-Encoding: identity", "hello"),
        "an empty coding": post!("Transfer-Encoding:", "hello"),
        "a comma": post!("Transfer-Encoding: ,", "hello"),
        "an empty element before": post!("Transfer-Encoding: , chunked", "0\r\n\r\n"),
        "an empty element after": post!("Transfer-Encoding: chunked,", "0\r\n\r\n"),
        "quotes around chunked": post!("Transfer-Encoding: \"chunked\"", "0\r\n\r\n"),
        "quotes around nothing": post!("Transfer-Encoding: \"\"chunked", "0\r\n\r\n"),
        "a parameter of chunked": post!("Transfer-Encoding: chunked;a=b", "0\r\n\r\n"),
        "a semicolon after chunked": post!("Transfer-Encoding: chunked;", "0\r\n\r\n"),
        "a space in chunked": post!("Transfer-Encoding: chun ked", "0\r\n\r\n"),
        "two words": post!("Transfer-Encoding: gzip chunked", "0\r\n\r\n"),
        "a vertical tab before chunked": post!("Transfer-Encoding: \x0bchunked", "0\r\n\r\n"),
        "a form feed after chunked": post!("Transfer-Encoding: chunked\x0c", "0\r\n\r\n"),
        "NUL after chunked": post!("Transfer-Encoding: chunked\0", "0\r\n\r\n"),
        "CR before chunked": post!("Transfer-Encoding: \rchunked", "0\r\n\r\n"),
        "a no-break space before chunked": post!("Transfer-Encoding: \u{a0}chunked", "0\r\n\r\n"),
        "a latin-1 no-break space after chunked":
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\xa0\r\n\r\n0\r\n\r\n",
        "a Kelvin sign in chunked": post!("Transfer-Encoding: chun\u{212a}ed", "0\r\n\r\n"),
        "a long s in the name": post!("Tran\u{17f}fer-Encoding: chunked", "0\r\n\r\n"),
        "brackets around chunked": post!("Transfer-Encoding: [chunked]", "0\r\n\r\n"),
        "a colon before chunked": post!("Transfer-Encoding: : chunked", "0\r\n\r\n"),
    }
    "9112 6.1, 9110 15.6.2", [], Refused(501) => {
        "an unknown coding": post!("Transfer-Encoding: x", "hello"),
        "a letter before chunked": post!("Transfer-Encoding: xchunked", "0\r\n\r\n"),
        "a letter after chunked": post!("Transfer-Encoding: chunkedx", "0\r\n\r\n"),
        "chunked cut short": post!("Transfer-Encoding: chunke", "0\r\n\r\n"),
        "an unknown coding under chunked": post!("Transfer-Encoding: x, chunked", "0\r\n\r\n"),
        "gzip under chunked": post!("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"),
        "identity under chunked": post!("Transfer-Encoding: identity, chunked", "0\r\n\r\n"),
        "a single quote before chunked": post!("Transfer-Encoding: 'chunked'", "0\r\n\r\n"),
    }
    "9112 9.3.2", [get("/1", "a"), get("/2", "a"), get("/3", "a")], Idle => {
        "three requests at once":
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
        "an empty line between requests":
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
    }
    "9112 9.3.2", [request("POST", "hello"), get("/2", "a")], Idle => {
        "a body, then a request": post!("Content-Length: 5", "helloGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
        "a body, an empty line, a request": post!("Content-Length: 5", "hello\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
        "a chunked body, then a request": chunked!("5\r\nhello\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
        "a chunked body with trailers, then a request":
            chunked!("5\r\nhello\r\n0\r\nX: y\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
        "a chunked body of many parts, then a request":
            chunked!("1\r\nh\r\n1\r\ne\r\n2\r\nll\r\n1\r\no\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
    }
    "9112 9.3.2", [request("HEAD", ""), get("/2", "a")], Idle => {
        "HEAD, then a request": b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
    }
    "9112 9.3.2", [request("POST", "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")], Idle => {
        "a body that looks like a request": post!("Content-Length: 28", "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
        "a chunk that looks like a request": chunked!("1c\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n"),
    }
    "9112 9.6", [request("POST", "hello")], Closed => {
        "close, a body, then a request":
            post!("Connection: close\r\nContent-Length: 5", "helloGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
        "close, a chunked body, then a request":
            post!("Connection: close\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
    }
    "9112 9.3.2", [get("/1", "a")], Refused(400) => {
        "a request, then one without Host": b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
        "a request, then garbage": b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\x00\x01",
        "a request, then a bad one, then a good one":
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nX\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
        "two empty lines between requests": b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
    }
    "9112 11.2", [request("POST", "hello")], Refused(400) => {
        "a body that is longer than its length": post!("Content-Length: 5", "hello world /x HTTP/1.1\r\n\r\n"),
    }
    "9112 9.3", [Request { method: "POST", target: "/1", authority: "a", body: "hello" }, get("/2", "a")], Idle => {
        "a kept-alive HTTP/1.0 request, then another":
            b"POST /1 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
    }
};

//! Writes the seed corpus: the table of cases for heads and chunked bodies, PROXY headers and frames of each kind.

use std::path::Path;
use std::{fs, io};

use jimu_http1::cases::CASES;

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let cases: Vec<&[u8]> = CASES.iter().copied().flatten().map(|case| case.bytes).collect();
    let chunked = cases.iter().filter_map(|bytes| bytes.strip_prefix(CHUNKED_HEAD));
    write(&corpus.join("head"), cases.iter().copied())?;
    write(&corpus.join("chunked"), chunked)?;
    write(&corpus.join("proxy"), PROXY.iter().copied())?;
    write(&corpus.join("websocket"), FRAMES.iter().copied())
}

fn write<'o>(directory: &Path, seeds: impl Iterator<Item = &'o [u8]>) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for (number, bytes) in seeds.enumerate() {
        fs::write(directory.join(format!("seed-{number:03}")), bytes)?;
    }
    Ok(())
}

/// What the target `chunked` prepends to its input.
const CHUNKED_HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
const PROXY: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 40000 443\r\nGET",
    b"PROXY TCP6 2001:db8::1 2001:db8::2 40000 443\r\n",
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x07\x9c\x40\x01\xbb",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x13\xc0\x00\x02\x01\xc6\x33\x64\x07\x9c\x40\x01\xbb\x04\x00\x04abcd",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24\
      \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x9c\x40\x01\xbb",
];
/// Frames with a mask of zeros: text in two fragments around a ping, two compressed messages of which the second
/// refers to the first, a Close frame.
const FRAMES: &[&[u8]] = &[
    b"\x01\x83\0\0\0\0abc\x89\x81\0\0\0\0p\x80\x83\0\0\0\0\xe7\xa7\xaf",
    b"\xc1\x87\0\0\0\0\xf2\x48\xcd\xc9\xc9\x07\x00\xc1\x85\0\0\0\0\xf2\x00\x11\x00\x00",
    b"\x82\xfe\x00\x7e\0\0\0\0",
    b"\x88\x85\0\0\0\0\x03\xe8bye\x8a\x80\0\0\0\0",
];

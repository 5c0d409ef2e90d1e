//! PROXY headers: never beyond the input, and a prefix of a header never means something else than the whole.

#![no_main]

use jimu_http1::ProxyProtocol;
use jimu_http1::proxy::{ProxyHeader, parse_proxy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for protocol in [ProxyProtocol::V1, ProxyProtocol::V2, ProxyProtocol::Auto] {
        let whole = parse_proxy(bytes, protocol, true);
        if let Ok(Some((len, header))) = whole {
            assert!(len <= bytes.len().min(16 + 4096));
            assert_eq!(len == 0, header == ProxyHeader::Absent);
        }
        for len in 0..bytes.len().min(64) {
            match parse_proxy(&bytes[..len], protocol, true) {
                Ok(None) => {}
                Ok(decided) => assert_eq!(Ok(decided), whole),
                Err(refused) => {
                    assert_eq!(Some(refused.status), whole.as_ref().err().map(|r| r.status))
                }
            }
        }
        let stranger = parse_proxy(bytes, protocol, false);
        assert!(matches!(stranger, Ok(None | Some((0, ProxyHeader::Absent))) | Err(_)));
    }
});

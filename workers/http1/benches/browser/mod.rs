//! The request that the benchmarks parse.

/// What a browser sends: 12 fields, 695 bytes.
pub const BROWSER: &[u8] = b"GET /articles/2026/11/stackful-coroutines?page=2&sort=newest HTTP/1.1\r\n\
Host: www.example.org\r\n\
Connection: keep-alive\r\n\
Upgrade-Insecure-Requests: 1\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Sec-Fetch-Site: same-origin\r\n\
Sec-Fetch-Mode: navigate\r\n\
Sec-Fetch-Dest: document\r\n\
Referer: https://www.example.org/articles/2026/11/\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
Cookie: session=2f1d4c7be0a94c13b6f1; theme=dark; consent=necessary%2Cstatistics; _tz=Europe%2FBerlin; cart=9b1c7e52\r\n\
\r\n";

//! A native application: the example that Rust authors copy.

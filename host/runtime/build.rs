//! Makes the library an executable, too: `src/start.rs` is where it starts.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let machine = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if ["aarch64", "x86_64"].contains(&machine.as_str()) {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-e,jimu_start");
    }
}

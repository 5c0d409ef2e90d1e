//! Makes the library an executable, too: `src/start.rs` is where it starts.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|machine| machine == "x86_64") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-e,jimu_start");
    }
}

//! The installed server: one file that is the command `host`, and the extension module `_jimu_runtime`, which the
//! interpreter that a mold executes loads (see `host::interpreter`). Contains no logic of the server.

mod python;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod start;

//! Exit statuses of `host`, of its molds and of its workers.

/// The server cannot start for a reason other than its settings, as in gunicorn.
pub const FAILED: i32 = 1;
/// A worker could not boot: gunicorn's `WORKER_BOOT_ERROR`.
pub const BOOT_ERROR: i32 = 3;
/// The application, or the interpreter for it, cannot be loaded: gunicorn's `APP_LOAD_ERROR`.
pub const APP_LOAD_ERROR: i32 = 4;
/// The server's own code panicked in a worker: `EX_SOFTWARE` of sysexits(3).
pub const PANICKED: i32 = 70;
/// Invalid settings, or a library that cannot be opened: `EX_CONFIG` of sysexits(3).
pub const EX_CONFIG: i32 = 78;

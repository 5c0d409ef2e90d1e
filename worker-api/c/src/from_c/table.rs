//! Checks the tables of the other side.

use std::ptr;

use crate::tables::{
    AppTable, EngineTable, ExchangeTable, HooksTable, HostTable, MAJOR, MINOR, RuntimeTable, Table,
    TlsConfigTable, TlsSessionTable, WorkerTable,
};

/// Why a table is refused. One line, without the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Another major version.
    #[error(
        "{table} is of jimu.h {major}.{minor}, this host has {MAJOR}.{MINOR}: build it with jimu.h {MAJOR}.x"
    )]
    Version {
        /// The type in `jimu.h`.
        table: &'static str,
        /// Its version.
        major: u16,
        /// Its version.
        minor: u16,
    },
    /// Fewer bytes than its version has, or more than any has.
    #[error(
        "{table} has {found} bytes, in jimu.h {MAJOR}.0 it has {expected}: begin it with JIMU_TABLE({table})"
    )]
    Size {
        /// The type in `jimu.h`.
        table: &'static str,
        /// Its size.
        found: u32,
        /// The size of the oldest version.
        expected: usize,
    },
    /// A required function or text is NULL.
    #[error("{table}: `{field}` is missing (NULL)")]
    Missing {
        /// The type in `jimu.h`.
        table: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A text is not UTF-8.
    #[error("{table}: `{field}` is not UTF-8")]
    Text {
        /// The type in `jimu.h`.
        table: &'static str,
        /// The field.
        field: &'static str,
    },
    /// The exported constant does not begin with `JIMU_MAGIC`.
    #[error(
        "jimu_module has the magic number {found:#x} instead of JIMU_MAGIC: export it with a macro of jimu.h"
    )]
    Magic {
        /// The number.
        found: u32,
    },
    /// The exported symbol is code.
    #[error("jimu_module is a function, not a table: export a constant with a macro of jimu.h")]
    Function,
    /// The exported constant is shorter than it says.
    #[error(
        "{table} has {found} bytes by its own account, but the exported jimu_module has {exported}: begin it with JIMU_TABLE({table})"
    )]
    Exported {
        /// The type in `jimu.h`.
        table: &'static str,
        /// Its size, as it says.
        found: u32,
        /// The size of the symbol.
        exported: u64,
    },
    /// A kind that does not exist.
    #[error("jimu_module is of the kind {found}, which jimu.h {MAJOR}.{MINOR} does not have")]
    Kind {
        /// The number.
        found: u32,
    },
    /// A flag that this host does not know.
    #[error("{table}: `flags` is {found:#x}, of which jimu.h {MAJOR}.{MINOR} has {known:#x} here")]
    Flags {
        /// The type in `jimu.h`.
        table: &'static str,
        /// The flags.
        found: u64,
        /// Those that exist for this kind.
        known: u64,
    },
}

/// A table whose functions can be called once it is checked.
pub trait Functions: Copy {
    /// The type in `jimu.h`.
    const NAME: &'static str;
    /// Size in the first version.
    const OLDEST: usize = size_of::<Self>();

    /// Returns a required function that is missing.
    fn missing(&self) -> Option<&'static str>;
}

macro_rules! functions {
    ($( $type:ident = $name:literal: $($field:ident)*; )*) => { $(
        impl Functions for $type {
            const NAME: &'static str = $name;

            fn missing(&self) -> Option<&'static str> {
                $( if self.$field.is_none() { return Some(stringify!($field)); } )*
                None
            }
        }
    )* };
}

functions! {
    AppTable = "jimu_app_table": call;
    WorkerTable = "jimu_worker_table": run;
    HooksTable = "jimu_hooks_table": event;
    ExchangeTable = "jimu_exchange_table": head read start write send_file informational trailers finish fail hijack
        descriptor deadline_ns extend_deadline on_disconnect wait is_proxied drop;
    HostTable = "jimu_host_table": setting section setting_file listeners remaining_backlog close_listeners spawn_index
        arbiter_pid notify alive stop retire wake_descriptor deliver_signals on_signal reclaim_signals
        signal_descriptor count request_started request_ended wants_response_headers log_level log write_log
        set_logged_variable at_abort logged_variables log_stack tls;
    TlsConfigTable = "jimu_tls_config_table": session;
    TlsSessionTable = "jimu_tls_session_table": read write flush_some send_close_notify seal wants_write properties drop;
    RuntimeTable = "jimu_runtime_table": cooperative wait_fd sleep spawn offload connect resolve;
    EngineTable = "jimu_engine_table": descriptor turn stopped;
}

/// Copies a table: functions that its version does not have are missing in the copy.
///
/// # Safety
/// `place` is NULL or a table as long as it says.
pub unsafe fn copy<T: Functions>(place: *const T, owner: &'static str) -> Result<T, Misfit> {
    if place.is_null() {
        return Err(Misfit::Missing { table: owner, field: "functions" });
    }
    // SAFETY: a table begins with its size and version, and is as long as it says.
    let copy = unsafe { extend(place, T::NAME, T::OLDEST) }?;
    match copy.missing() {
        Some(field) => Err(Misfit::Missing { table: T::NAME, field }),
        None => Ok(copy),
    }
}

/// Copies a structure that begins with a [`Table`], with zeros where it is shorter than this host's.
///
/// # Safety
/// `place` is a structure as long as it says; all zeros are a valid `T`.
pub(super) unsafe fn extend<T: Copy>(
    place: *const T,
    name: &'static str,
    oldest: usize,
) -> Result<T, Misfit> {
    // SAFETY: as the caller promises.
    let found = unsafe { place.cast::<Table>().read_unaligned() };
    check_version(found, name)?;
    check_size(found, name, oldest)?;
    let known = (found.size as usize).min(size_of::<T>());
    let mut copy = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: as the caller promises; the copy has room for `known` bytes, and zeros elsewhere.
    unsafe {
        ptr::copy_nonoverlapping(place.cast::<u8>(), copy.as_mut_ptr().cast::<u8>(), known);
        Ok(copy.assume_init())
    }
}

/// Checks the version.
pub(super) fn check_version(found: Table, table: &'static str) -> Result<(), Misfit> {
    let Table { major, minor, .. } = found;
    if major == MAJOR { Ok(()) } else { Err(Misfit::Version { table, major, minor }) }
}

/// Checks the size of a table of this major version.
pub(super) fn check_size(found: Table, table: &'static str, oldest: usize) -> Result<(), Misfit> {
    let Table { size, .. } = found;
    if (size as usize) < oldest || size > SIZE_MAX {
        return Err(Misfit::Size { table, found: size, expected: oldest });
    }
    Ok(())
}

/// No table is longer: a larger number is no size.
const SIZE_MAX: u32 = 64 << 10;

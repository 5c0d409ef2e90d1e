//! The library as an executable: what the C library's start files and Rust's runtime do for a program.
//!
//! An interpreter cannot load an ordinary executable, whose thread-local variables have places that only the first
//! program of a process can have. A library can be executed: it needs an entry point and the path of the dynamic linker,
//! which are in a module for each machine.

use std::ffi::{c_char, c_int};
use std::panic;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

/// Calls this library's constructors, as the dynamic linker does for every library but the program: that of std records
/// the arguments.
unsafe extern "C" fn initialize(
    count: c_int,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) {
    let (mut array, mut size) = (0, 0);
    let mut entry = (&raw const _DYNAMIC).cast::<Dynamic>();
    // SAFETY: the linker's table of this library, which an entry of this type ends.
    unsafe {
        while (*entry).tag != DT_NULL {
            match (*entry).tag {
                DT_INIT_ARRAY => array = (*entry).value,
                DT_INIT_ARRAYSZ => size = (*entry).value,
                _ => {}
            }
            entry = entry.add(1);
        }
    }
    let constructors = (&raw const __ehdr_start).wrapping_byte_add(array).cast::<Constructor>();
    for index in 0..size / size_of::<Constructor>() {
        // SAFETY: the table gives the place and the size of the array, which the dynamic linker has relocated.
        unsafe { (*constructors.add(index))(count, arguments, environment) };
    }
}

/// What Rust's runtime does before and after its `main`.
unsafe extern "C" fn main(_: c_int, _: *const *const c_char, _: *const *const c_char) -> c_int {
    open_standard_streams();
    // SAFETY: no handler runs for an ignored signal.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let status = panic::catch_unwind(host::command::main).unwrap_or(PANICKED);
    std::process::exit(status)
}

/// Opens standard streams that are closed, so that no file takes their numbers.
fn open_standard_streams() {
    for number in 0..=2 {
        // SAFETY: neither call touches memory of this process.
        unsafe {
            if libc::fcntl(number, libc::F_GETFD) == -1 {
                // The lowest free number is this one.
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
}

type Constructor = unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// An entry of the dynamic linker's table (`Elf64_Dyn`).
#[repr(C)]
struct Dynamic {
    tag: i64,
    value: usize,
}

unsafe extern "C" {
    /// The table, which the linker defines.
    static _DYNAMIC: [Dynamic; 0];
    /// The library's first byte, to which addresses in the table are relative; the linker defines it.
    static __ehdr_start: [Dynamic; 0];
}

const DT_NULL: i64 = 0;
const DT_INIT_ARRAY: i64 = 25;
const DT_INIT_ARRAYSZ: i64 = 27;
/// Exit status of a Rust program whose `main` panics.
const PANICKED: c_int = 101;

//! The stack of the calling thread, as addresses alone.
//!
//! Turning addresses into names reads the debug information of every library involved: up to a second and 80 MiB in a
//! debug build. [`crate::Host::log_stack`] has another process do that.

use std::ffi::{c_int, c_void};

/// Returns the return addresses on the calling thread's stack, the innermost first: up to 96, starting in this function.
#[must_use]
pub fn addresses() -> Vec<usize> {
    let mut frames = Vec::with_capacity(FRAMES_MAX);
    let list: *mut Vec<usize> = &raw mut frames;
    // SAFETY: the unwinder calls `push` synchronously, with the pointer that it is given here and that outlives the call.
    unsafe { _Unwind_Backtrace(push, list.cast()) };
    frames
}

extern "C" fn push(context: *mut c_void, list: *mut c_void) -> c_int {
    // SAFETY: `addresses` passes a pointer to a vector that nothing else uses during the call.
    let frames = unsafe { &mut *list.cast::<Vec<usize>>() };
    // SAFETY: the unwinder passes a valid context.
    let address = unsafe { _Unwind_GetIP(context) };
    if address != 0 && frames.len() < FRAMES_MAX {
        frames.push(address);
    }
    if frames.len() == FRAMES_MAX { STOP } else { CONTINUE }
}

// The unwinder that std itself links.
unsafe extern "C" {
    fn _Unwind_Backtrace(
        push: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
}

/// Reason codes of the Itanium C++ ABI, `_URC_NO_REASON` and `_URC_NORMAL_STOP`.
const CONTINUE: c_int = 0;
const STOP: c_int = 4;
/// As many as one message to the arbiter carries.
const FRAMES_MAX: usize = 96;

#[cfg(test)]
mod tests {
    #[test]
    fn a_stack_has_several_different_addresses() {
        let mut addresses = super::addresses();
        assert!(addresses.len() > 3, "{addresses:x?}");
        addresses.sort_unstable();
        addresses.dedup();
        assert!(addresses.len() > 3, "{addresses:x?}");
    }
}

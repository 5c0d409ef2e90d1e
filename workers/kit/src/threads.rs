//! Stack sizes of threads that call the application or run its tasks.

use nix::sys::resource::{Resource, getrlimit};
use worker_api::AppHandle;

/// Returns the stack size for threads that call the application: what it requests, else that of the main thread
/// (`ulimit -s`), so that deep recursion works the same as in a class without threads. Valid once `init_worker`
/// has returned.
pub fn stack_size(app: &AppHandle) -> usize {
    match app.stack_size() {
        0 => default_stack_size(),
        asked => asked.max(STACK_MIN),
    }
}

/// Returns `ulimit -s`; if that is unlimited, the default of most systems.
pub(crate) fn default_stack_size() -> usize {
    let soft = getrlimit(Resource::RLIMIT_STACK).map_or(STACK_DEFAULT, |(soft, _)| soft);
    match usize::try_from(soft) {
        Ok(size) if soft < STACK_MAX => size.max(STACK_MIN),
        _ => STACK_DEFAULT as usize,
    }
}

/// Many times what the server's own frames and those of a small request need.
const STACK_MIN: usize = 256 << 10;
const STACK_DEFAULT: u64 = 8 << 20;
/// A limit above this is treated as unlimited: the stacks of many threads would not fit.
const STACK_MAX: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_the_stack_of_the_main_thread() {
        let soft = getrlimit(Resource::RLIMIT_STACK).unwrap().0;
        let expected = if soft < STACK_MAX { soft as usize } else { STACK_DEFAULT as usize };
        assert_eq!(default_stack_size(), expected.max(STACK_MIN));
    }
}

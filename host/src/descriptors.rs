//! Which descriptors a process keeps that the arbiter forks: those that it was given, the standard streams, and those
//! that were open before the server opened any. All others belong to the arbiter and are closed.

use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::libc;

/// Descriptors that were open before the server opened any: those of the operator, which an application may use, and
/// those of libraries, for example a connection to the user database or the output of a profiler.
#[derive(Debug, Default)]
pub struct StartupDescriptors(Vec<(RawFd, DescriptorFlags)>);

/// The flags of a descriptor: `FD_CLOEXEC`, or none.
type DescriptorFlags = i32;

impl StartupDescriptors {
    /// Finds them. Called before the server opens its first descriptor.
    pub fn find() -> Self {
        let numbers = open_numbers().unwrap_or_else(|_| (0..NUMBERS_MAX).collect());
        let found = numbers.into_iter().filter_map(|number| Some((number, flags_of(number)?)));
        Self(found.collect())
    }

    /// Returns those that are still open. The server sets `FD_CLOEXEC` on an inherited listener that it adopts, and
    /// on everything that it opens: a number whose flags have changed is the server's.
    pub fn remaining(&self) -> impl Iterator<Item = RawFd> + '_ {
        let same = |&&(number, flags): &&(RawFd, DescriptorFlags)| flags_of(number) == Some(flags);
        self.0.iter().filter(same).map(|(number, _)| *number)
    }
}

/// Closes all descriptors but the standard streams and `kept`. Only for a new process that ends in
/// [`exit_now`](crate::process::exit_now), and that never uses or drops an object of its parent whose descriptor is not
/// among `kept`.
pub fn close_all_but(kept: impl IntoIterator<Item = RawFd>) {
    let streams = [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO];
    let mut kept: Vec<RawFd> = streams.into_iter().chain(kept).collect();
    kept.sort_unstable();
    kept.dedup();
    // A system may refuse the system call, and may have no `/proc`.
    if close_ranges(&kept).is_err() && close_listed(&kept).is_err() {
        close_numbers(&kept);
    }
}

/// Closes the ranges between the kept descriptors, which are sorted and begin with 0.
fn close_ranges(kept: &[RawFd]) -> nix::Result<()> {
    let ends = kept.iter().skip(1).map(|next| next.cast_unsigned() - 1).chain([u32::MAX]);
    for (before, last) in kept.iter().zip(ends) {
        let first = before.cast_unsigned() + 1;
        if first <= last {
            // SAFETY: see `close`, which holds for each number of the range.
            Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
        }
    }
    Ok(())
}

/// Closes the descriptors that `/proc` lists.
fn close_listed(kept: &[RawFd]) -> std::io::Result<()> {
    close_each(open_numbers()?, kept);
    Ok(())
}

/// Closes every number that the arbiter can have reached.
fn close_numbers(kept: &[RawFd]) {
    close_each(0..NUMBERS_MAX, kept);
}

fn close_each(numbers: impl IntoIterator<Item = RawFd>, kept: &[RawFd]) {
    for number in numbers.into_iter().filter(|number| kept.binary_search(number).is_err()) {
        // SAFETY: the owners are in stack frames of the parent's main loop, to which this process never returns, so
        // nothing here uses or closes the number again. A number that is not open is refused.
        unsafe { libc::close(number) };
    }
}

/// Returns the numbers in `/proc/self/fd`, among them that of the directory itself, which is closed by then.
fn open_numbers() -> std::io::Result<Vec<RawFd>> {
    let entries = std::fs::read_dir("/proc/self/fd")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

fn flags_of(number: RawFd) -> Option<DescriptorFlags> {
    // SAFETY: F_GETFD changes nothing. For a number that is not open it returns EBADF.
    Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) }).ok()
}

/// Bound on the numbers that are tried without `/proc`, some 3 ms. The kernel assigns the lowest free number, so the
/// arbiter reaches a higher one only with as many descriptors open; the limit itself can be a billion.
const NUMBERS_MAX: RawFd = 65_536;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::ForkResult;

    use super::*;

    /// Returns the exit status of `life` in a forked process.
    fn status_of(life: impl FnOnce() -> i32) -> WaitStatus {
        // SAFETY: the child makes system calls and uses the heap, which the C library keeps usable in it.
        match unsafe { nix::unistd::fork() }.unwrap() {
            ForkResult::Child => crate::process::exit_now(life()),
            ForkResult::Parent { child } => waitpid(child, None).unwrap(),
        }
    }

    #[test]
    fn each_way_closes_all_but_the_kept_descriptors() {
        let files: Vec<File> = (0..6).map(|_| File::open("/dev/null").unwrap()).collect();
        let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let mut kept = [0, 1, 2, numbers[1], numbers[2], numbers[4]];
        // Other tests close descriptors at the same time: a later file may have a lower number.
        kept.sort_unstable();
        let ways: [fn(&[RawFd]); 4] = [
            |kept| close_ranges(kept).unwrap_or(()),
            |kept| close_listed(kept).unwrap_or(()),
            close_numbers,
            |kept| close_all_but(kept.iter().copied()),
        ];
        for (way, close) in ways.into_iter().enumerate() {
            let status = status_of(|| {
                close(&kept);
                let mut numbers = numbers.iter().chain(&kept[..3]);
                let as_expected =
                    numbers.all(|number| kept.contains(number) == flags_of(*number).is_some());
                i32::from(!as_expected)
            });
            assert!(matches!(status, WaitStatus::Exited(_, 0)), "way {way}: {status:?}");
        }
    }

    #[test]
    fn an_adopted_or_closed_descriptor_is_no_longer_one_of_the_start() {
        let status = status_of(|| {
            let [kept, adopted, closed] = [40, 41, 42].map(|number| {
                // SAFETY: dup2 makes the number a copy of standard error, without FD_CLOEXEC.
                unsafe { libc::dup2(libc::STDERR_FILENO, number) }
            });
            let startup = StartupDescriptors::find();
            // SAFETY: both numbers were opened above.
            unsafe {
                libc::fcntl(adopted, libc::F_SETFD, libc::FD_CLOEXEC);
                libc::close(closed);
            }
            let remaining: Vec<RawFd> = startup.remaining().collect();
            let as_expected = remaining.contains(&kept)
                && !remaining.contains(&adopted)
                && !remaining.contains(&closed);
            i32::from(!as_expected)
        });
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    }
}

//! Descriptions of system errors that mean that a resource has run out, with the name of the limit.

use nix::errno::Errno;
use nix::libc::RLIM_INFINITY;
use nix::sys::resource::{Resource, getrlimit};

/// Returns the error's description, and which limit to raise or what to free.
pub fn describe(error: Errno) -> String {
    let Some(limit) = limit_of(error) else { return error.desc().to_owned() };
    format!("{}: {limit}", error.desc())
}

/// Like [`describe`], for an error of the standard library.
pub fn describe_io(error: &std::io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw).and_then(limit_of) {
        Some(limit) => format!("{error}: {limit}"),
        None => error.to_string(),
    }
}

fn limit_of(error: Errno) -> Option<String> {
    Some(match error {
        Errno::EFBIG => {
            of_process(Resource::RLIMIT_FSIZE, "RLIMIT_FSIZE", "ulimit -f", "LimitFSIZE=")
        }
        Errno::EMFILE => {
            of_process(Resource::RLIMIT_NOFILE, "RLIMIT_NOFILE", "ulimit -n", "LimitNOFILE=")
        }
        Errno::ENFILE => "raise the system's limit fs.file-max".to_owned(),
        Errno::EAGAIN => format!(
            "{}, or the control group's pids.max (TasksMax=)",
            of_process(Resource::RLIMIT_NPROC, "RLIMIT_NPROC", "ulimit -u", "LimitNPROC=")
        ),
        Errno::ENOMEM => format!(
            "free memory, or raise the control group's memory.max (MemoryMax=); {}",
            of_process(Resource::RLIMIT_AS, "RLIMIT_AS", "ulimit -v", "LimitAS=")
        ),
        Errno::ENOSPC => "free space on that file system, or memory if it is a tmpfs".to_owned(),
        _ => return None,
    })
}

fn of_process(resource: Resource, name: &str, shell: &str, unit: &str) -> String {
    let value = match getrlimit(resource) {
        Ok((soft, _)) if soft != RLIM_INFINITY => soft.to_string(),
        Ok(_) => "unlimited".to_owned(),
        Err(_) => "unknown".to_owned(),
    };
    format!("raise {name} (now {value}; {shell}, {unit})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named() {
        for (error, name) in [
            (Errno::EFBIG, "ulimit -f, LimitFSIZE="),
            (Errno::EMFILE, "ulimit -n, LimitNOFILE="),
            (Errno::ENFILE, "fs.file-max"),
            (Errno::EAGAIN, "ulimit -u, LimitNPROC="),
            (Errno::ENOMEM, "memory.max"),
            (Errno::ENOSPC, "free space"),
        ] {
            let text = describe(error);
            assert!(text.contains(name), "{text}");
            assert!(describe_io(&error.into()).contains(name));
        }
        assert_eq!(describe(Errno::EPERM), "Operation not permitted");
    }
}

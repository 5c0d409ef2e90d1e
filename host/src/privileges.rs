//! Giving up privileges: as whom molds and workers run. The arbiter keeps its own, so that it can
//! bind again.

use nix::unistd::{Gid, Uid, geteuid, initgroups, setgid, setgroups, setuid};

use crate::settings::Settings;

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The system refused.
    #[error("cannot run as the {what} that the settings name: {reason}")]
    Refused {
        /// "user" or "group".
        what: &'static str,
        /// What the system said.
        reason: nix::Error,
    },
}

/// Becomes the user and group of the settings. All groups of root are given up too (gunicorn keeps
/// them unless `initgroups` is set).
pub fn drop_to(settings: &Settings) -> Result<(), PrivilegeError> {
    let refused = |what| move |reason| PrivilegeError::Refused { what, reason };
    let uid = settings.user.as_ref().map(|user| Uid::from_raw(user.uid));
    let gid = settings.group.map(|group| Gid::from_raw(group.0));
    if geteuid().is_root() && (uid.is_some_and(|uid| !uid.is_root()) || gid.is_some()) {
        let gid = gid.unwrap_or_else(nix::unistd::getegid);
        let name = settings.user.as_ref().and_then(|user| user.name.as_deref());
        let name = name.and_then(|name| std::ffi::CString::new(name).ok());
        match name.filter(|_| settings.initgroups) {
            Some(name) => initgroups(&name, gid),
            None => setgroups(&[gid]),
        }
        .map_err(refused("group"))?;
    }
    if let Some(gid) = gid.filter(|&gid| gid != nix::unistd::getegid()) {
        setgid(gid).map_err(refused("group"))?;
    }
    if let Some(uid) = uid.filter(|&uid| uid != geteuid()) {
        setuid(uid).map_err(refused("user"))?;
    }
    Ok(())
}

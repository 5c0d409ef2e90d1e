//! Giving up privileges: as whom molds and workers run. The arbiter keeps its own, so that it can
//! bind again.

use std::ffi::CString;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{
    Gid, Uid, User, getegid, geteuid, getgrouplist, getgroups, initgroups, setfsgid, setfsuid,
    setgid, setgroups, setuid,
};

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
        let gid = gid.unwrap_or_else(getegid);
        let name = settings.user.as_ref().and_then(|user| user.name.as_deref());
        let name = name.and_then(|name| CString::new(name).ok());
        match name.filter(|_| settings.initgroups) {
            Some(name) => initgroups(&name, gid),
            None => setgroups(&[gid]),
        }
        .map_err(refused("group"))?;
    }
    if let Some(gid) = gid.filter(|&gid| gid != getegid()) {
        setgid(gid).map_err(refused("group"))?;
    }
    if let Some(uid) = uid.filter(|&uid| uid != geteuid()) {
        setuid(uid).map_err(refused("user"))?;
    }
    Ok(())
}

/// The user that molds and workers run as, for what root does in places that this user may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: Uid,
    /// The group.
    pub gid: Gid,
    /// All groups.
    pub groups: Vec<Gid>,
}

impl Identity {
    /// The settings' user, where it is another than root and this process is root: otherwise it has no more rights
    /// than its workers.
    pub fn of_workers(settings: &Settings) -> Option<Self> {
        let account = settings.user.as_ref().filter(|account| account.uid != 0)?;
        if !geteuid().is_root() {
            return None;
        }
        let uid = Uid::from_raw(account.uid);
        let primary = || User::from_uid(uid).ok().flatten().map_or_else(getegid, |user| user.gid);
        let gid = settings.group.map_or_else(primary, |group| Gid::from_raw(group.0));
        let name = account.name.as_deref().filter(|_| settings.initgroups);
        let groups = name
            .and_then(|name| getgrouplist(&CString::new(name).ok()?, gid).ok())
            .unwrap_or_else(|| vec![gid]);
        Some(Self { uid, gid, groups })
    }

    /// Runs `access` with this user's rights to files. For a process with one thread.
    pub fn with_file_access<T>(&self, access: impl FnOnce() -> T) -> Result<T, Errno> {
        let own = FileAccess {
            uid: geteuid(),
            gid: getegid(),
            groups: getgroups()?,
            dumpable: prctl::get_dumpable().unwrap_or(false),
        };
        setgroups(&self.groups)?;
        setfsgid(self.gid);
        setfsuid(self.uid);
        // Both calls return what was before, and report no failure otherwise.
        let refused = setfsuid(self.uid) != self.uid || setfsgid(self.gid) != self.gid;
        let result = if refused { Err(Errno::EPERM) } else { Ok(access()) };
        drop(own);
        result
    }
}

/// The rights to files that a process has, and gets back when this is dropped.
struct FileAccess {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    dumpable: bool,
}

impl Drop for FileAccess {
    fn drop(&mut self) {
        setfsuid(self.uid);
        setfsgid(self.gid);
        // Root had these groups before; it may have them again.
        let _ = setgroups(&self.groups);
        // The kernel takes the change as a reason to make no core any more.
        let _ = prctl::set_dumpable(self.dumpable);
    }
}

//! Dropping privileges: the user and group of molds and workers. The arbiter keeps its own, so that it can bind
//! again.

use std::ffi::CString;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::unistd::{
    Gid, Uid, User, getegid, geteuid, getgrouplist, getgroups, initgroups, setfsgid, setfsuid,
    setgid, setgroups, setuid,
};

use crate::settings::Settings;

/// Why privileges could not be dropped.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The system refused.
    #[error("cannot switch to the configured {what}: {reason}")]
    Refused {
        /// "user" or "group".
        what: &'static str,
        /// The system's error.
        reason: nix::Error,
    },
    /// The user has no primary group.
    #[error("user {uid} is not in the user database, so its group is unknown: set `group`")]
    NoGroup {
        /// The user.
        uid: u32,
    },
}

/// Changes to the user and group of the settings. Root's own groups are dropped as well.
pub fn drop_to(settings: &Settings) -> Result<(), PrivilegeError> {
    let refused = |what| move |reason| PrivilegeError::Refused { what, reason };
    let uid = settings.user.as_ref().map(|user| Uid::from_raw(user.uid));
    let gid = group_of(settings)?;
    if geteuid().is_root() && (uid.is_some_and(|uid| !uid.is_root()) || gid.is_some()) {
        let gid = gid.unwrap_or_else(getegid);
        match user_with_groups(settings) {
            Some(name) => initgroups(&name, gid),
            None => setgroups(&[gid]),
        }
        .map_err(refused("group"))?;
    }
    let leaves_root = geteuid().is_root() && uid.is_some_and(|uid| !uid.is_root());
    if leaves_root && settings.no_new_privs {
        forgo_privileges().map_err(refused("user"))?;
    }
    if let Some(gid) = gid.filter(|&gid| gid != getegid()) {
        setgid(gid).map_err(refused("group"))?;
    }
    if let Some(uid) = uid.filter(|&uid| uid != geteuid()) {
        setuid(uid).map_err(refused("user"))?;
    }
    Ok(())
}

/// Prevents this process and its children from gaining privileges by executing a program: no capability is left
/// in the bounding set, and set-user-ID bits are ignored (`PR_SET_NO_NEW_PRIVS`).
fn forgo_privileges() -> nix::Result<()> {
    for capability in 0..=CAPABILITY_MAX {
        // SAFETY: prctl takes numbers and touches no memory of this process.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match Errno::result(dropped) {
            Ok(_) => {}
            // The kernel has no further capability, or a container has dropped CAP_SETPCAP: the
            // bounding set is then the container's.
            Err(Errno::EINVAL | Errno::EPERM) => break,
            Err(error) => return Err(error),
        }
    }
    prctl::set_no_new_privs()
}

/// Returns the group of molds and workers: that of the settings, else the primary group of their user if root
/// becomes another user.
pub fn group_of(settings: &Settings) -> Result<Option<Gid>, PrivilegeError> {
    if let Some(group) = settings.group {
        return Ok(Some(Gid::from_raw(group.0)));
    }
    let Some(account) = settings.user.as_ref().filter(|account| account.uid != 0) else {
        return Ok(None);
    };
    if !geteuid().is_root() {
        return Ok(None);
    }
    match User::from_uid(Uid::from_raw(account.uid)) {
        Ok(Some(user)) => Ok(Some(user.gid)),
        _ => Err(PrivilegeError::NoGroup { uid: account.uid }),
    }
}

/// Returns the user whose supplementary groups molds and workers get: with `initgroups`, and if the settings name
/// no group.
fn user_with_groups(settings: &Settings) -> Option<CString> {
    let name = settings.user.as_ref()?.name.as_deref()?;
    let wanted = settings.initgroups || settings.group.is_none();
    CString::new(name).ok().filter(|_| wanted)
}

/// The user of molds and workers, for operations of root in places that this user may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User ID.
    pub uid: Uid,
    /// Primary group ID.
    pub gid: Gid,
    /// All groups.
    pub groups: Vec<Gid>,
}

impl Identity {
    /// Returns the settings' user if this process is root and the user is not: otherwise this process has no
    /// more rights than its workers.
    pub fn of_workers(settings: &Settings) -> Option<Self> {
        let account = settings.user.as_ref().filter(|account| account.uid != 0)?;
        if !geteuid().is_root() {
            return None;
        }
        let uid = Uid::from_raw(account.uid);
        // A user without a primary group is refused when the mold starts.
        let gid = group_of(settings).ok().flatten().unwrap_or_else(getegid);
        let groups = user_with_groups(settings)
            .and_then(|name| getgrouplist(&name, gid).ok())
            .unwrap_or_else(|| vec![gid]);
        Some(Self { uid, gid, groups })
    }

    /// Runs `access` with this user's permissions for files. Only for a process with one thread.
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
        // Both calls return the previous ID and report no error otherwise.
        let refused = setfsuid(self.uid) != self.uid || setfsgid(self.gid) != self.gid;
        let result = if refused { Err(Errno::EPERM) } else { Ok(access()) };
        drop(own);
        result
    }
}

/// The saved permissions of a process, restored on drop.
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
        // The kernel disables core dumps when the IDs change.
        let _ = prctl::set_dumpable(self.dumpable);
    }
}

/// The highest number that the kernel's capability masks can hold.
const CAPABILITY_MAX: libc::c_ulong = 63;

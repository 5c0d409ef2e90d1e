//! The process that watches the files of one generation, where the setting `reload` is on: it tells the
//! arbiter when one of them has changed and stayed as it is for a moment. What the files are, the
//! generation's workers tell it, as often as they have loaded more.
//!
//! ```text
//!     workers ── ToWatcher ──▶ watcher ── FromWatcher ──▶ arbiter
//! ```
//!
//! It is a process of its own because watching takes a thread, which neither the arbiter nor a mold may
//! have. Folders are watched and not files, since editors replace files. Each generation has its own, so
//! one that goes on because its successor was refused goes on watching.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::message::{Channel, FromWatcher, Received, ToWatcher};
use crate::mold::title_of;
use crate::settings::Settings;
use crate::{privileges, process};

/// What the process gets from the arbiter.
pub struct WatcherStart {
    /// The settings of its generation.
    pub settings: Arc<Settings>,
    /// The arbiter's process id.
    pub arbiter_pid: u32,
    /// Where workers name files.
    pub files: Channel,
    /// Where changes are told.
    pub changes: Channel,
    /// Descriptors of the arbiter's that it may not hold.
    pub close: Vec<RawFd>,
}

/// The life of the process, from just behind the fork, where all signals are still blocked.
pub fn run(start: WatcherStart) -> ! {
    process::begin_forked(&start.close);
    process::set_title(&title_of(&start.settings, "watcher"));
    if let Err(error) = privileges::drop_to(&start.settings) {
        tracing::error!("No file is watched: {error}");
        process::exit_now(1);
    }
    if !process::tie_to_parent(Pid::from_raw(start.arbiter_pid as i32), Signal::SIGKILL) {
        process::exit_now(0);
    }
    match serve(start) {
        Ok(()) => process::exit_now(0),
        Err(error) => {
            tracing::error!("No file is watched: {error}");
            process::exit_now(1);
        }
    }
}

/// What wakes the process.
enum Input {
    Files(Vec<PathBuf>, SystemTime),
    Event(notify::Result<notify::Event>),
}

fn serve(start: WatcherStart) -> Result<(), Box<dyn std::error::Error>> {
    let (inputs, arrived) = mpsc::channel();
    let events = inputs.clone();
    let kernel = notify::recommended_watcher(move |event| {
        // Nobody takes it when the process is about to end.
        let _ = events.send(Input::Event(event));
    })?;
    let mut watched =
        Watched { kernel, files: BTreeSet::new(), folders: BTreeSet::new(), told: false };
    watched.add(start.settings.reload_extra_files.iter().cloned());
    process::set_nonblocking(start.files.as_fd(), false)?;
    let files = start.files;
    std::thread::Builder::new().spawn(move || hear(&files, &inputs))?;
    while let Some(changed) = next_change(&arrived, &mut watched) {
        start.changes.send(&changed)?;
        watched.told = true;
    }
    Ok(())
}

/// Passes on the files that workers name, until there can be no worker any more.
fn hear(files: &Channel, inputs: &Sender<Input>) {
    loop {
        match files.receive::<ToWatcher>() {
            Ok(Received::Message(ToWatcher::Files { files, named }, _)) => {
                if inputs.send(Input::Files(files, named)).is_err() {
                    return;
                }
            }
            Ok(Received::Garbled(_) | Received::Nothing) => {}
            Ok(Received::Closed) => return,
            Err(error) => return tracing::warn!("the files of workers cannot be heard: {error}"),
        }
    }
}

/// Waits for a change and for the quiet behind it; nothing when no more can come.
fn next_change(arrived: &Receiver<Input>, watched: &mut Watched) -> Option<FromWatcher> {
    let mut changed = BTreeSet::new();
    while changed.is_empty() {
        watched.take(arrived.recv().ok()?, &mut changed);
    }
    let latest = Instant::now() + SETTLE_MAX;
    while Instant::now() < latest {
        match arrived.recv_timeout(QUIET) {
            Ok(input) => watched.take(input, &mut changed),
            Err(_) => break,
        }
    }
    let others = changed.len() - 1;
    changed.pop_first().map(|file| FromWatcher::Changed { file, others })
}

struct Watched {
    kernel: RecommendedWatcher,
    files: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
    /// A change was told and this generation is still there, so its successor is not, or cannot be: the
    /// reason may stand in a file that nobody could load. Any Python file beside the known ones counts.
    told: bool,
}

impl Watched {
    fn take(&mut self, input: Input, changed: &mut BTreeSet<PathBuf>) {
        match input {
            Input::Files(paths, named) => {
                let is_news = |path: &PathBuf| changed_since(path, named);
                self.add(paths.iter().cloned());
                changed.extend(paths.into_iter().filter(is_news));
            }
            Input::Event(Ok(event)) if is_change(event.kind) => {
                changed.extend(event.paths.into_iter().filter(|path| self.concerns(path)));
            }
            Input::Event(Ok(_)) => {}
            Input::Event(Err(error)) => tracing::warn!("watching files: {error}"),
        }
    }

    fn add(&mut self, paths: impl Iterator<Item = PathBuf>) {
        for path in paths {
            // A link may be turned to another file, and the file behind it may be written to.
            let real = path.canonicalize().ok().filter(|real| *real != path);
            for path in real.into_iter().chain([path]) {
                self.add_one(path);
            }
        }
    }

    fn add_one(&mut self, path: PathBuf) {
        if let Some(folder) = path.parent()
            && !self.folders.contains(folder)
        {
            self.folders.insert(folder.to_owned());
            if let Err(error) = self.kernel.watch(folder, RecursiveMode::NonRecursive) {
                tracing::warn!("the files in {} are not watched: {error}", folder.display());
            }
        }
        self.files.insert(path);
    }

    fn concerns(&self, path: &Path) -> bool {
        let is_python = path.extension().is_some_and(|extension| extension == "py");
        self.files.contains(path) || self.told && is_python
    }
}

/// Whether a file was written to after a time; a moment that the clock of the file system does not tell apart
/// is none.
fn changed_since(path: &Path, time: SystemTime) -> bool {
    path.metadata().and_then(|facts| facts.modified()).is_ok_and(|modified| modified > time)
}

/// Whether the contents may be others now. Reading is none, and neither is a change of rights.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Modify(what) => !matches!(what, ModifyKind::Metadata(_)),
        EventKind::Create(_) | EventKind::Remove(_) => true,
        EventKind::Any | EventKind::Other => false,
    }
}

/// So long nothing changes any more before a change is told: editors write several times.
const QUIET: Duration = Duration::from_millis(100);
/// A change is told after this time at the latest.
const SETTLE_MAX: Duration = Duration::from_secs(2);

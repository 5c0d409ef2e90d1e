//! The process that watches the files of one generation with the setting `reload`: it notifies the arbiter when a
//! file has changed and no further change follows for a moment. The files are those of the settings, and those that the
//! generation's workers report, each time they have loaded more.
//!
//! ```text
//!     workers ── ToWatcher ──▶ watcher ── FromWatcher ──▶ arbiter
//! ```
//!
//! It is a separate process because watching needs a thread, which neither the arbiter nor a mold may have. It
//! watches directories instead of files, since editors replace files. Each generation has its own watcher, so a
//! generation that continues because its successor was refused is still watched.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::message::{Channel, FromWatcher, Received, ToWatcher};
use crate::settings::Settings;
use crate::{privileges, process, title};

mod extra;

use extra::{Extra, links_of};

/// What the process gets from the arbiter.
pub struct WatcherStart {
    /// Settings of its generation.
    pub settings: Arc<Settings>,
    /// The arbiter's process ID.
    pub arbiter_pid: Pid,
    /// Channel on which workers report files.
    pub files: Channel,
    /// Channel for reporting changes.
    pub changes: Channel,
    /// Descriptors to keep besides those of both channels.
    pub keep: Vec<RawFd>,
}

/// Runs the process. Called right after the fork, while all signals are still blocked.
pub fn run(start: WatcherStart) -> ! {
    let own = [&start.files, &start.changes].map(AsRawFd::as_raw_fd);
    process::begin_forked(start.keep.iter().copied().chain(own));
    title::set(&start.settings, "watcher");
    if let Err(error) = privileges::drop_to(&start.settings) {
        tracing::error!("cannot watch files: {error}");
        process::exit_now(1);
    }
    if !process::tie_to_parent(start.arbiter_pid, Signal::SIGKILL) {
        process::exit_now(0);
    }
    match serve(start) {
        Ok(()) => process::exit_now(0),
        Err(error) => {
            tracing::error!("cannot watch files: {error}");
            process::exit_now(1);
        }
    }
}

/// An event that wakes the process.
enum Input {
    Files { files: Vec<PathBuf>, named: SystemTime, loaded: bool },
    Event(notify::Result<notify::Event>),
}

fn serve(start: WatcherStart) -> Result<(), Box<dyn std::error::Error>> {
    let (inputs, arrived) = mpsc::channel();
    let events = inputs.clone();
    let kernel = notify::recommended_watcher(move |event| {
        // Fails only when the process is about to exit.
        let _ = events.send(Input::Event(event));
    })?;
    let mut watched = Watched {
        kernel,
        files: BTreeSet::new(),
        directories: BTreeSet::new(),
        extras: Vec::new(),
        any_python: true,
    };
    // Where the first attempt to load the application looks for files: if it fails, none may have been
    // reported.
    let chdir = &start.settings.chdir;
    let directories = start.settings.pythonpath.iter().map(|path| chdir.join(path));
    for directory in directories.chain([chdir.clone()]).filter(|path| path.is_dir()) {
        watched.watch(&directory, RecursiveMode::NonRecursive);
    }
    start.settings.reload_extra_files.iter().for_each(|path| watched.add_extra(path));
    start.settings.file.iter().for_each(|path| watched.add_file(path));
    start.settings.file_imports.iter().for_each(|path| watched.add_file(path));
    process::set_nonblocking(start.files.as_fd(), false)?;
    let files = start.files;
    std::thread::Builder::new().spawn(move || forward_files(&files, &inputs))?;
    while let Some(changed) = next_change(&arrived, &mut watched) {
        start.changes.send(&changed)?;
        watched.any_python = true;
    }
    Ok(())
}

/// Forwards the files that workers report, until no worker can exist any more.
fn forward_files(files: &Channel, inputs: &Sender<Input>) {
    loop {
        match files.receive::<ToWatcher>() {
            Ok(Received::Message(ToWatcher::Files { files, named, loaded }, _)) => {
                if inputs.send(Input::Files { files, named, loaded }).is_err() {
                    return;
                }
            }
            Ok(Received::Garbled(_) | Received::Nothing) => {}
            Ok(Received::Closed) => return,
            Err(error) => return tracing::warn!("cannot read the files of workers: {error}"),
        }
    }
}

/// Waits for a change and until no further one follows. Returns `None` when no more can come.
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
    directories: BTreeSet<PathBuf>,
    extras: Vec<Extra>,
    /// Whether any Python file counts in addition to the known ones: while the application has not been
    /// loaded, and after a change was reported, since the reason for a successor's failure may be in a file
    /// that was never loaded.
    any_python: bool,
}

impl Watched {
    fn take(&mut self, input: Input, changed: &mut BTreeSet<PathBuf>) {
        match input {
            Input::Files { files, named, loaded } => {
                let is_news = |path: &PathBuf| changed_since(path, named);
                self.any_python &= !loaded;
                self.add(files.iter().cloned());
                changed.extend(files.into_iter().filter(is_news));
            }
            Input::Event(Ok(event)) if is_change(event.kind) => {
                changed.extend(event.paths.into_iter().filter(|path| self.concerns(path)));
            }
            Input::Event(Ok(_)) => {}
            Input::Event(Err(error)) => tracing::warn!("file watching failed: {error}"),
        }
    }

    fn add(&mut self, paths: impl Iterator<Item = PathBuf>) {
        for path in paths {
            // Both count: a link may be redirected to another file, and its target may be written to.
            let real = path.canonicalize().ok().filter(|real| *real != path);
            for path in real.into_iter().chain([path]) {
                self.add_one(path);
            }
        }
    }

    fn add_one(&mut self, path: PathBuf) {
        if let Some(directory) = path.parent() {
            self.watch(directory, RecursiveMode::NonRecursive);
        }
        self.files.insert(path);
    }

    /// Adds a path of `--reload-extra-file`: a file, all files below a directory, or the files that match a
    /// pattern.
    fn add_extra(&mut self, path: &Path) {
        match Extra::of(path) {
            Some(extra) => {
                self.add_links(path);
                self.watch(&extra.directory, RecursiveMode::Recursive);
                self.extras.push(extra);
            }
            None => self.add_file(path),
        }
    }

    fn add_file(&mut self, path: &Path) {
        self.add_links(path);
        self.add([path.to_owned()].into_iter());
    }

    /// Adds the links on the way to `path`, which may be switched to another directory, as deployments by links do.
    fn add_links(&mut self, path: &Path) {
        for link in links_of(path) {
            self.add_one(link);
        }
    }

    fn watch(&mut self, directory: &Path, mode: RecursiveMode) {
        let is_new = self.directories.insert(directory.to_owned());
        if (is_new || mode == RecursiveMode::Recursive)
            && let Err(error) = self.kernel.watch(directory, mode)
        {
            tracing::warn!("cannot watch the files in {}: {error}", directory.display());
        }
    }

    fn concerns(&self, path: &Path) -> bool {
        let is_python = path.extension().is_some_and(|extension| extension == "py");
        self.files.contains(path)
            || self.any_python && is_python
            || self.extras.iter().any(|extra| extra.has(path))
    }
}

/// Returns whether a file was modified after `time`, within the resolution of the file system's clock.
fn changed_since(path: &Path, time: SystemTime) -> bool {
    path.metadata().and_then(|facts| facts.modified()).is_ok_and(|modified| modified > time)
}

/// Returns whether the contents may have changed. Reading and changing permissions do not count.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Modify(what) => !matches!(what, ModifyKind::Metadata(_)),
        EventKind::Create(_) | EventKind::Remove(_) => true,
        EventKind::Any | EventKind::Other => false,
    }
}

/// A change is reported after this time without another one: editors write several times.
const QUIET: Duration = Duration::from_millis(100);
/// Upper bound of the delay before a change is reported.
const SETTLE_MAX: Duration = Duration::from_secs(2);

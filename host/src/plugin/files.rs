//! The files that a worker is made of, for the setting `reload`: the libraries of worker class and application with what
//! they bring along, and the files that the application names.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::SystemTime;

use worker_api::raw::AppBox;

use crate::clock;
use crate::message::{Channel, ToWatcher};

/// Loaded files, and which of them have been reported.
pub struct LoadedFiles {
    app: &'static AppBox,
    libraries: Vec<PathBuf>,
    reported: Mutex<Reported>,
}

#[derive(Default)]
struct Reported {
    files: BTreeSet<PathBuf>,
    /// No report before this time.
    due_ns: u64,
}

impl LoadedFiles {
    /// Creates the list for an application and the loaded libraries.
    pub fn new(app: &'static AppBox, libraries: Vec<PathBuf>) -> Self {
        Self { app, libraries, reported: Mutex::default() }
    }

    /// Reports files to the watcher that it does not have yet, at most once a second. A concurrent call, or a
    /// nested one further up the stack, does it instead. `loaded` is false if loading the application has
    /// failed.
    pub(super) fn report(&self, watcher: &Channel, loaded: bool) {
        let Ok(mut reported) = self.reported.try_lock() else { return };
        let now_ns = clock::now_ns();
        if now_ns < reported.due_ns {
            return;
        }
        reported.due_ns = now_ns + PERIOD_NS;
        let of_app = self.app.files().into_iter().map(|file| PathBuf::from(file.into_string()));
        let files = of_app.chain(self.libraries.iter().cloned());
        let absolute = files.filter_map(|file| std::path::absolute(file).ok());
        let new: Vec<PathBuf> =
            absolute.filter(|file| reported.files.insert(file.clone())).collect();
        let named = SystemTime::now();
        for files in new.chunks(FILES_PER_MESSAGE) {
            let message = ToWatcher::Files { files: files.to_vec(), named, loaded };
            // The watcher may have exited.
            if let Err(error) = watcher.send(&message) {
                return tracing::debug!("cannot report loaded files to the watcher: {error}");
            }
        }
    }
}

/// At 100 to 200 bytes per path, this number fits easily into one message.
const FILES_PER_MESSAGE: usize = 16;
/// Pause between two reports.
const PERIOD_NS: u64 = 1_000_000_000;

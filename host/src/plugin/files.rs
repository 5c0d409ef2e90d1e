//! Which files a worker is made of, for the setting `reload`: the two libraries, and what the
//! application says.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::SystemTime;

use worker_api::raw::AppBox;

use crate::clock;
use crate::message::{Channel, ToWatcher};

/// What is loaded, and what of it was told.
pub struct LoadedFiles {
    app: &'static AppBox,
    libraries: Vec<PathBuf>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    files: BTreeSet<PathBuf>,
    /// Not asked again before.
    due_ns: u64,
}

impl LoadedFiles {
    /// An application and the libraries that were opened.
    pub fn new(app: &'static AppBox, libraries: Vec<PathBuf>) -> Self {
        Self { app, libraries, told: Mutex::default() }
    }

    /// Tells the watcher what it was not told yet, once a second at most. Another thread that is at it, or this one
    /// further up its stack, does it instead. `loaded` is false where loading the application has failed.
    pub(super) fn report(&self, watcher: &Channel, loaded: bool) {
        let Ok(mut told) = self.told.try_lock() else { return };
        let now_ns = clock::now_ns();
        if now_ns < told.due_ns {
            return;
        }
        told.due_ns = now_ns + PERIOD_NS;
        let of_app = self.app.files().into_iter().map(|file| PathBuf::from(file.into_string()));
        let files = of_app.chain(self.libraries.iter().cloned());
        let absolute = files.filter_map(|file| std::path::absolute(file).ok());
        let new: Vec<PathBuf> = absolute.filter(|file| told.files.insert(file.clone())).collect();
        let named = SystemTime::now();
        for files in new.chunks(FILES_PER_MESSAGE) {
            let message = ToWatcher::Files { files: files.to_vec(), named, loaded };
            // The watcher may have ended.
            if let Err(error) = watcher.send(&message) {
                return tracing::debug!("cannot name loaded files to the watcher: {error}");
            }
        }
    }
}

/// So many paths, of a hundred or two hundred bytes each, fit into one message by far.
const FILES_PER_MESSAGE: usize = 16;
/// The pause between two questions.
const PERIOD_NS: u64 = 1_000_000_000;

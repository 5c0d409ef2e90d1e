//! The main function, for any payload: from the command line to the arbiter.

use std::sync::Arc;

use crate::arbiter::Arbiter;
use crate::descriptors::StartupDescriptors;
use crate::exit_status::{EX_CONFIG, FAILED};
use crate::log::{ErrorLog, log_panics};
use crate::payload::Payload;
use crate::settings::{Action, Settings, Sources};
use crate::{daemon, evaluation, mold, process, title};

/// Reads the settings, runs the requested action, and returns the exit status: 0 after a planned stop, 78
/// (`EX_CONFIG`) for invalid settings, 1 if the server cannot start, otherwise the status of the payload's
/// refusal.
pub fn main<P: Payload>() -> i32 {
    process::ignore_write_errors();
    let sources = match Sources::of_process() {
        Ok(sources) => sources,
        Err(error) => {
            eprintln!("error: cannot read the working directory: {error}");
            return EX_CONFIG;
        }
    };
    match evaluation::load(&sources) {
        Ok((settings, Action::Serve)) => serve::<P>(sources, settings),
        Ok((settings, Action::PrintConfig)) => {
            print!("{}", settings.to_toml());
            0
        }
        Ok((settings, Action::CheckConfig)) => check::<P>(&settings),
        Ok((_, Action::CheckWorker { class, config })) => {
            crate::check::main(&class, config.as_deref())
        }
        Err(error) => {
            error.print();
            error.exit_status()
        }
    }
}

fn serve<P: Payload>(sources: Sources, settings: Arc<Settings>) -> i32 {
    let startup = StartupDescriptors::find();
    // The successor of an upgraded arbiter is in the background already.
    let in_background = std::env::var_os(crate::listener::UPGRADE_VARIABLE).is_some();
    let leaves = settings.daemon && !in_background;
    if let Some(Err(error)) = leaves.then(daemon::daemonize) {
        eprintln!("error: cannot go to the background: {error}");
        return FAILED;
    }
    let Some(log) = open_log(&settings) else { return EX_CONFIG };
    settings.warn_of_ignored();
    title::set(&settings, "arbiter");
    match Arbiter::new(sources, settings, log, startup, mold::run::<P>) {
        Ok(arbiter) => arbiter.run(),
        Err(error) => {
            tracing::error!("{error}");
            FAILED
        }
    }
}

/// Loads what a mold would load, and prints the result.
fn check<P: Payload>(settings: &Arc<Settings>) -> i32 {
    let Some(log) = open_log(settings) else { return EX_CONFIG };
    settings.warn_of_ignored();
    mold::try_load::<P>(Arc::clone(settings), log)
}

fn open_log(settings: &Settings) -> Option<Arc<ErrorLog>> {
    match ErrorLog::open(settings) {
        Ok(log) => {
            let log = Arc::new(log);
            Arc::clone(&log).install();
            log_panics();
            Some(log)
        }
        Err(error) => {
            eprintln!("error: {error}");
            None
        }
    }
}

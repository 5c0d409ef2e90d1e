//! What a mold hands over to the interpreter that it executes: its state as data, and descriptors by their numbers,
//! which the interpreter inherits.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::runtime::Runtime;
use crate::hooks::Commands;
use crate::listener::{Listener, ListenerRecord};
use crate::log::{ErrorLog, LogRecord};
use crate::memfd::{MFdFlags, memfd_create, unnamed_file};
use crate::message::Channel;
use crate::payload::MoldContext;
use crate::process;
use crate::scoreboard::{MoldSlots, SlotsRecord};
use crate::settings::{Problem, SettingsRecord};

/// The state of a mold, or of a check of the settings, as data.
#[derive(Debug, Serialize, Deserialize)]
pub struct Handover {
    /// The build that wrote it.
    build: String,
    settings: SettingsRecord,
    generation: u32,
    arbiter_pid: i32,
    listeners: Vec<ListenerRecord>,
    log: LogRecord,
    access: Option<LogRecord>,
    files: Vec<PrivateFile>,
    watcher: Option<RawFd>,
    runtime: RuntimeRecord,
    purpose: PurposeRecord,
}

#[derive(Debug, Serialize, Deserialize)]
enum PurposeRecord {
    Check,
    Serve { command: RawFd, report: RawFd, slots: SlotsRecord },
}

/// The runtime's path, and the descriptor of the copy that the interpreter loads.
#[derive(Debug, Serialize, Deserialize)]
struct RuntimeRecord {
    #[serde(with = "crate::bytes")]
    path: PathBuf,
    copy: RawFd,
    #[serde(with = "crate::bytes")]
    opened: PathBuf,
}

/// A file that was read before privileges were dropped.
#[derive(Debug, Serialize, Deserialize)]
struct PrivateFile {
    setting: String,
    content: Result<Vec<u8>, (Option<i32>, String)>,
}

/// What the executed interpreter is for.
pub enum Purpose {
    /// Loading everything once, to check the settings.
    Check,
    /// Being a mold.
    Serve {
        /// The mold's end of its channel to the arbiter.
        command: Channel,
        /// The workers' end of the generation's channel to the arbiter.
        report: Channel,
        /// The mold's slot.
        slots: MoldSlots,
    },
}

/// Why the state could not be handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The system refused the file or a descriptor.
    #[error("{}", crate::limits::describe(*.0))]
    Descriptor(Errno),
    /// The state cannot be written or read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The state is not that of this build.
    #[error("invalid state: {0}")]
    Invalid(#[from] serde_json::Error),
    /// The settings are not those of this build.
    #[error("{0}")]
    Settings(Problem),
    /// The mold's slot is in memory that another program cannot map.
    #[error(
        "the scoreboard has no file: the system refuses memfd_create, and no directory for temporary files permits \
         unnamed ones"
    )]
    NoMemory,
    /// The runtime does not belong to this executable.
    #[error(
        "the runtime for Python is of another build ({runtime}) than the server ({server}); install both together"
    )]
    Build {
        /// The build of the runtime.
        runtime: &'static str,
        /// The build of the arbiter.
        server: String,
    },
}

impl Handover {
    /// Records the state of a mold, and lets the program that it executes inherit its descriptors.
    pub fn of_mold(
        context: &MoldContext,
        command: &Channel,
        report: &Channel,
        slots: &MoldSlots,
        runtime: &Runtime,
    ) -> Result<Self, HandoverError> {
        let (slots, memory) = slots.record().ok_or(HandoverError::NoMemory)?;
        keep(command.as_fd())?;
        keep(report.as_fd())?;
        keep(memory)?;
        let purpose = PurposeRecord::Serve {
            command: command.as_raw_fd(),
            report: report.as_raw_fd(),
            slots,
        };
        Self::new(context, runtime, purpose)
    }

    /// Records the state of a check.
    pub fn of_check(context: &MoldContext, runtime: &Runtime) -> Result<Self, HandoverError> {
        Self::new(context, runtime, PurposeRecord::Check)
    }

    fn new(
        context: &MoldContext,
        runtime: &Runtime,
        purpose: PurposeRecord,
    ) -> Result<Self, HandoverError> {
        for listener in &context.listeners {
            keep(listener.as_fd())?;
        }
        keep(context.log.file().as_fd())?;
        context.access.iter().try_for_each(|file| keep(file.as_fd()))?;
        context.watcher.iter().try_for_each(|channel| keep(channel.as_fd()))?;
        keep(runtime.copy.as_fd())?;
        Ok(Self {
            build: BUILD.to_owned(),
            settings: SettingsRecord::new(&context.settings),
            generation: context.generation,
            arbiter_pid: context.arbiter_pid.as_raw(),
            listeners: context.listeners.iter().map(|of| ListenerRecord::new(of)).collect(),
            log: context.log.file().record(),
            access: context.access.as_ref().map(|file| file.record()),
            files: context.files.iter().map(PrivateFile::new).collect(),
            watcher: context.watcher.as_deref().map(AsRawFd::as_raw_fd),
            runtime: RuntimeRecord {
                path: runtime.path.clone(),
                copy: runtime.copy.as_raw_fd(),
                opened: runtime.opened.clone(),
            },
            purpose,
        })
    }

    /// Writes the state into a file without a name, which the program inherits.
    pub(super) fn write(&self) -> Result<File, HandoverError> {
        let mut file = match memfd_create(c"jimu-handover", MFdFlags::empty()) {
            Ok(descriptor) => File::from(descriptor),
            Err(_) => unnamed_file()?,
        };
        file.write_all(&serde_json::to_vec(self)?)?;
        file.rewind()?;
        keep(file.as_fd())?;
        Ok(file)
    }

    /// Reads the state in the executed program.
    pub fn read(descriptor: RawFd) -> Result<Self, HandoverError> {
        #[derive(Deserialize)]
        struct Start {
            build: String,
        }
        let mut file = File::from(process::take_descriptor(descriptor)?);
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        // Another build may have written other fields.
        let Start { build } = serde_json::from_slice(&text)?;
        if build != BUILD {
            return Err(HandoverError::Build { runtime: BUILD, server: build });
        }
        Ok(serde_json::from_slice(&text)?)
    }

    /// Takes the descriptors, and makes the log that of this process.
    pub fn restore(self) -> Result<(MoldContext, Purpose), HandoverError> {
        let settings = Arc::new(self.settings.restore().map_err(HandoverError::Settings)?);
        let log = Arc::new(ErrorLog::restore(self.log, &settings)?);
        log.be_patient();
        Arc::clone(&log).install();
        let listeners = self.listeners.into_iter().map(|listener| listener.restore().map(Arc::new));
        let listeners = listeners.collect::<io::Result<Vec<Arc<Listener>>>>()?;
        let access = self.access.map(|record| record.restore(&settings)).transpose()?;
        if let Some(access) = &access {
            access.be_patient();
        }
        let purpose = match self.purpose {
            PurposeRecord::Check => Purpose::Check,
            PurposeRecord::Serve { command, report, slots } => {
                let slots = MoldSlots::restore(&slots)?;
                log.count_in(slots.log_lines());
                let [command, report] = [command, report].map(Channel::restore);
                Purpose::Serve { command: command?, report: report?, slots }
            }
        };
        let watcher = self.watcher.map(Channel::restore).transpose()?;
        let RuntimeRecord { path, copy, opened } = self.runtime;
        let runtime = Runtime { path, copy: process::take_descriptor(copy)?.into(), opened };
        runtime.hide();
        let context = MoldContext {
            runtime: Some(runtime),
            settings,
            generation: self.generation,
            listeners,
            arbiter_pid: Pid::from_raw(self.arbiter_pid),
            log,
            access: access.map(Arc::new),
            files: self.files.into_iter().filter_map(PrivateFile::restore).collect(),
            commands: Commands::default(),
            watcher: watcher.map(Arc::new),
        };
        Ok((context, purpose))
    }
}

/// Lets the program inherit a descriptor.
fn keep(descriptor: BorrowedFd<'_>) -> Result<(), HandoverError> {
    process::keep_over_exec(descriptor).map_err(HandoverError::Descriptor)
}

impl PrivateFile {
    fn new((setting, content): &(&'static str, io::Result<Vec<u8>>)) -> Self {
        let content = match content {
            Ok(content) => Ok(content.clone()),
            Err(error) => Err((error.raw_os_error(), error.to_string())),
        };
        Self { setting: (*setting).to_owned(), content }
    }

    fn restore(self) -> Option<(&'static str, io::Result<Vec<u8>>)> {
        let setting = crate::settings::TABLE.iter().find(|known| known.name == self.setting)?;
        let content = self.content.map_err(|(number, text)| {
            number.map_or_else(|| io::Error::other(text), io::Error::from_raw_os_error)
        });
        Some((setting.name, content))
    }
}

/// Identifies the sources that this crate was built from.
const BUILD: &str = concat!("host-", env!("CARGO_PKG_VERSION"), "+", env!("JIMU_BUILD"));

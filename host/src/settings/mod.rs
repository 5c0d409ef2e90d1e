//! The settings: one table ([`TABLE`]) from which flags, file keys, `--help`, `--print-config`, the reference
//! page and the struct [`Settings`] are generated.
//!
//! [`Sources`] is everything that settings are read from. In increasing priority: defaults (and the variables
//! that replace them), the file, `GUNICORN_CMD_ARGS`, `JIMU_CMD_ARGS`, the command line, and requests of `hostctl`.
//! It is kept, and read again at each reload. A file in Python is evaluated by another process in between:
//! [`Loading`].
//!
//! **Invariant:** a `Settings` that exists is valid; no other code of this crate checks a setting again.

mod bind;
mod classes;
mod config;
mod declare;
mod error;
mod file;
mod flags;
pub mod gunicorn;
mod losses;
mod page;
mod print;
mod record;
mod sections;
mod table;
mod types;
mod unknown;
mod unsupported;
mod value;
mod words;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use bind::Bind;
pub use classes::{class_advice, class_alias};
pub use config::{ConfigName, PythonFile};
pub use declare::{Effect, Setting, Variable};
pub use error::{Error, Origin, Problem};
use file::FileSettings;
pub use flags::{Action, command};
pub use losses::is_django_project;
pub use page::page;
pub use record::SettingsRecord;
pub use sections::Sections;
pub use table::{Settings, TABLE};
pub use types::{
    Account, GroupId, Interface, Lifespan, Load, LogFormat, LogLevel, LogTarget, PythonOptions,
    StatsdHost, SyslogAddress, SyslogFacility, TrustedPeers,
};
pub use unsupported::{IGNORED, MOVED, UNSUPPORTED};
pub use value::{Kind, Value};

pub use crate::capacity::WORKERS_MAX;

/// Everything that settings are read from, so that they can be read again.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Name of the program as it was called.
    pub program: OsString,
    /// Command line without the program's name.
    pub args: Vec<OsString>,
    /// Environment.
    pub environment: BTreeMap<String, String>,
    /// Directory in which the server was started, as the user spelled it: a symbolic link in it is resolved
    /// again at each reload.
    pub directory: PathBuf,
    /// Names and values that override everything else: requests of `hostctl`.
    pub requests: Vec<(String, String)>,
    /// Worker class to use if none is chosen, in place of the default: the one for the interface that the application
    /// turned out to speak.
    pub detected_class: Option<&'static str>,
}

impl Sources {
    /// Returns the sources of this process. Variables that are not UTF-8 are ignored.
    pub fn of_process() -> std::io::Result<Self> {
        let utf8 = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let mut args = std::env::args_os();
        Ok(Self {
            program: args.next().unwrap_or_default(),
            args: args.collect(),
            environment: std::env::vars_os().filter_map(utf8).collect(),
            directory: start_directory()?,
            requests: Vec::new(),
            detected_class: None,
        })
    }

    /// Enters the start directory if its path is not valid UTF-8, so that relative paths lead there. The
    /// process is already there, unless a symbolic link in the path has changed.
    fn enter_if_not_text(&self) {
        if self.directory.to_str().is_none() {
            // A missing directory is reported when a file in it is read.
            let _ = std::env::set_current_dir(&self.directory);
        }
    }

    /// Reads, checks and merges all sources. Fails if the file is one that Python has to evaluate.
    pub fn load(&self) -> Result<(Arc<Settings>, Action), Error> {
        match self.begin()? {
            Loading::Done(settings, action) => Ok((settings, action)),
            Loading::Python(file) => Err(file.problem(0, "Python has to evaluate it").into()),
        }
    }

    /// Reads, checks and merges all sources, as far as that needs no Python.
    pub fn begin(&self) -> Result<Loading, Error> {
        self.enter_if_not_text();
        let flags = self.flags()?;
        let (config, shadowed) = ConfigName::choose(flags.config(), &self.directory);
        let mut file = match &config {
            Some(ConfigName::Toml(path)) => file::load(path).map_err(Error::Invalid)?,
            Some(python) => {
                let early = python.early_settings(&flags, &self.directory)?;
                let settings = Arc::new(self.merge(&flags, early, None)?.0);
                let python = PythonFile { sources: self.clone(), name: python.clone(), settings };
                return Ok(Loading::Python(Box::new(python)));
            }
            None => FileSettings::default(),
        };
        file.ignored.extend(shadowed);
        let path = if let Some(ConfigName::Toml(path)) = config { Some(path) } else { None };
        let (settings, action) = self.merge(&flags, file, path)?;
        Ok(Loading::Done(Arc::new(settings), action))
    }

    /// Merges the file's settings with those of all other sources.
    fn merge(
        &self,
        flags: &GivenFlags,
        file: FileSettings,
        path: Option<PathBuf>,
    ) -> Result<(Settings, Action), Error> {
        let mut layers = Layers::defaults();
        if let (Some(class), Some(index)) = (self.detected_class, index_of("worker_class")) {
            layers.values[index] = Value::Text(class.to_owned());
        }
        layers.take_variables(&self.environment)?;
        let FileSettings { values, sections, mut ignored } = file;
        for (index, value, origin) in values {
            layers.set(index, value, origin);
        }
        let mut action = Action::Serve;
        for (flags, origin) in &flags.0 {
            let given = flags.ignored.iter();
            ignored.extend(given.filter_map(|name| Problem::ignored(origin, name)));
            layers.take_flags(flags.values.clone(), origin);
            if flags.action != Action::Serve {
                action = flags.action.clone();
            }
        }
        layers.take_requests(&self.requests)?;
        let mut settings = layers.finish(&self.directory, path, sections, ignored)?;
        settings.program.clone_from(&self.program);
        settings.arguments.clone_from(&self.args);
        Ok((settings, action))
    }

    fn flags(&self) -> Result<GivenFlags, Error> {
        let mut given = Vec::new();
        for name in COMMAND_VARIABLES {
            given.push((self.variable_flags(name)?, Origin::CommandVariable(name)));
        }
        given.push((flags::parse(&self.args).map_err(Error::Flags)?, Origin::CommandLine));
        Ok(GivenFlags(given))
    }

    fn variable_flags(&self, name: &'static str) -> Result<flags::Flags, Error> {
        let origin = Origin::CommandVariable(name);
        let text = self.environment.get(name).map_or("", String::as_str);
        let words = words::split(text)
            .ok_or_else(|| Problem::at(&origin, "unclosed quote, or a backslash at the end"))?;
        let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        flags::parse(&words).map_err(|error| {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            let line = line.strip_prefix("error: ").unwrap_or(line);
            Problem::at(&origin, line).into()
        })
    }
}

/// How far [`Sources::begin`] has come.
#[derive(Debug)]
pub enum Loading {
    /// The settings are complete.
    Done(Arc<Settings>, Action),
    /// Python has to evaluate the file.
    Python(Box<PythonFile>),
}

/// The flags of each source, in increasing priority.
struct GivenFlags(Vec<(flags::Flags, Origin)>);

impl GivenFlags {
    /// Returns the settings file that was named.
    fn config(&self) -> Option<&Path> {
        self.0.iter().rev().find_map(|(flags, _)| flags.config.as_deref())
    }

    /// Returns whether a flag sets the setting with this index.
    fn has(&self, index: usize) -> bool {
        self.0.iter().any(|(flags, _)| flags.values.iter().any(|(given, _)| *given == index))
    }
}

impl Settings {
    /// Returns the value of a setting by its name; plugins receive settings this way.
    pub fn get(&self, name: &str) -> Option<&Value> {
        index_of(name).map(|index| &self.values[index])
    }

    /// Logs a warning for each key or flag that was given and has no effect.
    pub fn warn_of_ignored(&self) {
        for problem in &self.ignored {
            tracing::warn!("{problem}");
        }
    }

    /// Returns the origin of a setting's value.
    pub fn origin(&self, name: &str) -> Option<&Origin> {
        index_of(name).map(|index| &self.origins[index])
    }

    /// Returns how long a worker may take to exit: `graceful_timeout`, and two seconds in which its class cuts the requests
    /// that are left and the application's exit functions run. gevent's workers wait for half of that for the greenlets that
    /// they have killed.
    pub fn exit_timeout(&self) -> Duration {
        self.graceful_timeout.saturating_add(Duration::from_secs(2))
    }

    /// Returns the class to try for an application that speaks another interface than the class calls, unless the operator
    /// has chosen the class or the interface.
    pub fn class_for_other_interface(&self) -> Option<&'static str> {
        let is_chosen = self.origin("worker_class") != Some(&Origin::Default)
            || self.interface != Interface::Auto;
        let other = if self.class() == ASGI_CLASS { WSGI_CLASS } else { ASGI_CLASS };
        (!is_chosen).then_some(other)
    }

    /// Returns the name or path of the effective worker class: as in gunicorn, `sync` with more than one
    /// thread is `gthread`.
    pub fn class(&self) -> &str {
        if self.worker_class == "sync" && self.threads > 1 { "gthread" } else { &self.worker_class }
    }
}

/// Returns the working directory as spelled by `$PWD` if that is the same directory, as in gunicorn: the spelling
/// preserves the symbolic links that the user followed.
fn start_directory() -> std::io::Result<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let current = std::env::current_dir()?;
    let Some(spelled) = std::env::var_os("PWD").map(PathBuf::from) else { return Ok(current) };
    let identity = |path: &Path| path.metadata().map(|facts| (facts.dev(), facts.ino())).ok();
    let is_current = spelled.is_absolute() && identity(&spelled) == identity(&current);
    Ok(if is_current { spelled } else { current })
}

/// Default path of the control socket: next to gunicorn's, under a different name.
pub fn default_control_socket(environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    let directory = |name: &str| environment.get(name).filter(|path| path.starts_with('/'));
    match directory("XDG_RUNTIME_DIR") {
        Some(runtime) => Some(Path::new(runtime).join("host.ctl")),
        None => directory("HOME").map(|home| Path::new(home).join(".host/host.ctl")),
    }
}

/// Values so far and their origins; higher-priority sources overwrite others.
struct Layers {
    values: Vec<Value>,
    origins: Vec<Origin>,
}

impl Layers {
    fn defaults() -> Self {
        let default = |setting: &Setting| match setting.default {
            Some("") if setting.kind.is_list() => Value::List(Vec::new()),
            Some(text) => setting.parse(text).unwrap_or(Value::Unset),
            None => Value::Unset,
        };
        Self {
            values: TABLE.iter().map(default).collect(),
            origins: vec![Origin::Default; TABLE.len()],
        }
    }

    fn set(&mut self, index: usize, value: Value, origin: Origin) {
        self.values[index] = value;
        self.origins[index] = origin;
    }

    fn take_variables(&mut self, environment: &BTreeMap<String, String>) -> Result<(), Error> {
        for (index, setting) in TABLE.iter().enumerate() {
            let Some(variable) = setting.variable else { continue };
            let text = environment.get(variable.name).filter(|text| !text.is_empty());
            let Some(text) = text else { continue };
            let origin = Origin::Variable(variable.name);
            let value = setting
                .parse(&format!("{}{text}", variable.prefix))
                .map_err(|expected| Problem::value(&origin, setting.name, &expected, text))?;
            self.set(index, value, origin);
        }
        if let (Some(index), Some(path)) =
            (index_of("control_socket"), default_control_socket(environment))
        {
            self.values[index] = Value::Text(path.to_string_lossy().into_owned());
        }
        Ok(())
    }

    fn take_flags(&mut self, values: Vec<(usize, Value)>, origin: &Origin) {
        for (index, value) in values {
            self.set(index, value, origin.clone());
        }
    }

    fn take_requests(&mut self, requests: &[(String, String)]) -> Result<(), Error> {
        for (name, text) in requests {
            let origin = Origin::Request;
            let index = index_of(name).ok_or_else(|| unknown::unknown_key(&origin, name))?;
            let value = TABLE[index]
                .parse(text)
                .map_err(|expected| Problem::value(&origin, name, &expected, text))?;
            self.set(index, value, origin);
        }
        Ok(())
    }

    /// Makes paths absolute and types the values.
    fn finish(
        mut self,
        directory: &Path,
        file: Option<PathBuf>,
        sections: Sections,
        ignored: Vec<Problem>,
    ) -> Result<Settings, Error> {
        let chdir = index_of("chdir").unwrap_or_default();
        // Values are strings. If this directory's path is not valid UTF-8, paths stay relative to it: see
        // `enter_if_not_text`.
        let is_text = directory.to_str().is_some();
        let start = if is_text { directory } else { Path::new(".") };
        Kind::Path.resolve(&mut self.values[chdir], start);
        let base = PathBuf::from(self.values[chdir].as_str().unwrap_or_default());
        if !is_text && base.is_relative() && base != start {
            let message = format!(
                "chdir: cannot be relative, because the working directory {} is not valid UTF-8; start the server in the \
                 directory to use",
                directory.display()
            );
            return Err(Problem::at(&self.origins[chdir], &message).into());
        }
        if !base.is_dir() {
            return Err(Problem::value(
                &self.origins[chdir],
                "chdir",
                "expected a directory",
                &base.display().to_string(),
            )
            .into());
        }
        for (setting, value) in TABLE.iter().zip(&mut self.values) {
            setting.kind.resolve(value, &base);
        }
        let mut settings = Settings::assemble(self.values, self.origins, sections, ignored)?;
        check_worker_range(&settings)?;
        settings.has_application =
            settings.wsgi_app.is_some() || is_django_project(&settings.chdir);
        settings.file = file;
        directory.clone_into(&mut settings.start_directory);
        Ok(settings)
    }
}

/// Refuses numbers of workers of which one excludes the other.
fn check_worker_range(settings: &Settings) -> Result<(), Error> {
    let refuse = |name: &str, message: String| {
        let origin = &settings.origins[index_of(name).unwrap_or_default()];
        Err(Problem::at(origin, &message).into())
    };
    let Some(max) = settings.max_workers else {
        return match settings.min_workers {
            Some(_) => {
                refuse("min_workers", "min_workers: has no effect without max_workers".into())
            }
            None => Ok(()),
        };
    };
    let numbers =
        [("workers", settings.workers), ("min_workers", settings.min_workers.unwrap_or(1))];
    match numbers.into_iter().find(|(_, number)| *number > max) {
        Some((name, number)) => {
            refuse("max_workers", format!("max_workers: is {max}, but {name} is {number}"))
        }
        None => Ok(()),
    }
}

fn index_of(name: &str) -> Option<usize> {
    TABLE.iter().position(|setting| setting.name == name)
}

/// The default worker class, for WSGI applications.
const WSGI_CLASS: &str = "sync";
/// The worker class for ASGI applications.
const ASGI_CLASS: &str = "asgi";
/// Environment variables with flags that precede those of the command line, in increasing priority.
const COMMAND_VARIABLES: [&str; 2] = ["GUNICORN_CMD_ARGS", "JIMU_CMD_ARGS"];

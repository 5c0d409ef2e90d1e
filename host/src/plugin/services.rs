//! The host's services for plugins: one object per process, reached through the ABI's `RawHost`.
//!
//! Created in the mold, from settings, files and the log; in a worker, [`Services::enter`] adds the rest.
//! Whatever a plugin obtained in the mold (above all its log) keeps working in the worker, since it is the same
//! object.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{ROption, RResult, RSlice, RStr, RString, RVec};
use worker_api::fork;
use worker_api::guard::{catch, catch_flat};
use worker_api::raw::{AppBox, HooksBox, HostBox, RawHost, RawHost_TO, TaskBox, TlsBox, WorkerBox};
use worker_api::{AccessRecord, Counter, Failure, Host, Listener, LogLevel, RequestHead, Value};

use super::error::one_line;
use super::files::LoadedFiles;
use super::names::LibraryNames;
use super::request;
use crate::listener::Address;
use crate::log::{self, ErrorLog};
use crate::message::Channel;
use crate::payload::MoldContext;
use crate::settings::{self, Settings};
use crate::stack::{KnownStacks, Stack, StackReport, shorten};
use crate::worker::{GRACEFUL, QUICK, REOPEN, WINDOW, WorkerContext};

/// The state of the services. Lives as long as the process.
pub struct Services {
    settings: Arc<Settings>,
    listeners: Vec<Listener>,
    files: Vec<(&'static str, Result<Vec<u8>, String>)>,
    log: Arc<ErrorLog>,
    arbiter_pid: i32,
    worker: OnceLock<WorkerContext>,
    hooks: OnceLock<Hooks>,
    loaded: OnceLock<LoadedFiles>,
    names: OnceLock<Arc<LibraryNames>>,
    /// Whether the application has been notified that the worker is exiting.
    drains: AtomicBool,
    watcher: Option<Arc<Channel>>,
    /// Process ID of the mold.
    mold: u32,
    /// The stacks that this worker has reported.
    stacks: KnownStacks,
}

/// Receivers of events.
struct Hooks {
    plugin: Option<HooksBox>,
    /// Whether the plugin receives requests, too.
    wants_requests: bool,
    app: &'static AppBox,
}

impl Services {
    /// Creates the services of a mold and of its workers.
    pub fn of_mold(context: &MoldContext) -> &'static Self {
        let listeners = context.listeners.iter().map(|listener| {
            let (name, unix) = match listener.address() {
                Address::Tcp(address) => (address.to_string(), false),
                Address::Unix(path) => (format!("unix:{}", path.display()), true),
                Address::Abstract(name) => (format!("unix:@{name}"), true),
            };
            let name = if listener.is_private() { worker_api::PRIVATE.to_owned() } else { name };
            Listener { fd: listener.descriptor(), name: name.into(), unix }
        });
        let files = context.files.iter().map(|(name, contents)| {
            let contents = contents.as_ref().map_err(ToString::to_string);
            (*name, contents.cloned())
        });
        Box::leak(Box::new(Self {
            settings: Arc::clone(&context.settings),
            listeners: listeners.collect(),
            files: files.collect(),
            log: Arc::clone(&context.log),
            arbiter_pid: context.arbiter_pid.as_raw(),
            worker: OnceLock::new(),
            hooks: OnceLock::new(),
            loaded: OnceLock::new(),
            names: OnceLock::new(),
            drains: AtomicBool::new(false),
            watcher: context.watcher.clone(),
            mold: std::process::id(),
            stacks: KnownStacks::default(),
        }))
    }

    /// Sets the loaded files, which a worker reports to the watcher.
    pub fn set_loaded(&self, loaded: LoadedFiles) {
        let _ = self.loaded.set(loaded);
    }

    /// Sets the names of the loaded libraries, which a worker keeps up to date for debuggers.
    pub fn set_library_names(&self, names: Arc<LibraryNames>) {
        let _ = self.names.set(names);
    }

    /// Reports new files to the watcher, if there is one. `loaded` is false if loading the application has
    /// failed.
    pub fn report_files(&self, loaded: bool) {
        if let (Some(watcher), Some(files)) = (&self.watcher, self.loaded.get()) {
            files.report(watcher, loaded);
        }
    }

    /// Turns these services into those of a worker.
    pub fn enter(&self, context: WorkerContext) -> &WorkerContext {
        self.worker.get_or_init(|| context)
    }

    /// Sets the receivers of events.
    pub fn set_hooks(&self, plugin: Option<HooksBox>, app: &'static AppBox) {
        let wants_requests = plugin.as_ref().is_some_and(HooksBox::wants_requests);
        // Fails only if they are already set.
        let _ = self.hooks.set(Hooks { plugin, wants_requests, app });
    }

    /// Runs the hooks of an event: the plugin's, then the application's. A failure is logged.
    pub fn hook(&self, event: &str, facts: &[i64]) {
        let Some(Hooks { plugin, app, .. }) = self.hooks.get() else { return };
        let (name, facts) = (RStr::from_str(event), RSlice::from_slice(facts));
        let of_plugin = plugin.as_ref().map(|plugin| plugin.event(name, facts).into_result());
        for result in of_plugin.into_iter().chain([app.hook(name, facts).into_result()]) {
            fork::end_if_child();
            if let Err(failure) = result {
                tracing::error!("hook {event}: {}", one_line(&failure));
            }
        }
    }

    /// Returns the plugin, if it receives requests.
    fn request_hooks(&self) -> Option<&HooksBox> {
        let hooks = self.hooks.get().filter(|hooks| hooks.wants_requests && !fork::is_child())?;
        hooks.plugin.as_ref()
    }

    /// Creates the services for one plugin, whose section of the settings file is `section`.
    pub fn for_plugin(&'static self, section: &toml::Table) -> HostBox {
        let section = toml::to_string(section).unwrap_or_default();
        RawHost_TO::from_value(PluginHost { services: self, section }, TD_Opaque)
    }

    fn setting(&self, name: &str) -> Option<Value> {
        Some(match self.settings.get(name)? {
            settings::Value::Unset => return None,
            settings::Value::Bool(flag) => Value::Bool(*flag),
            settings::Value::Int(number) => Value::Int(*number),
            settings::Value::Seconds(seconds) => Value::Float(*seconds),
            settings::Value::Text(text) => Value::Text(text.as_str().into()),
            several => {
                let items = several.to_list().unwrap_or_default();
                Value::List(items.into_iter().map(RString::from).collect())
            }
        })
    }

    fn setting_file(&self, name: &str) -> Result<Option<&[u8]>, Failure> {
        match self.files.iter().find(|(setting, _)| *setting == name) {
            None => Ok(None),
            Some((_, Ok(contents))) => Ok(Some(contents)),
            Some((_, Err(error))) => {
                let path = self.settings.get(name).and_then(settings::Value::as_str);
                let path = path.unwrap_or_default();
                Err(Failure::config(format!("{name}: {path} cannot be read: {error}")))
            }
        }
    }

    /// Handles signals that arrived before the worker's run ended and were not delivered.
    pub fn take_last_signals(&self) {
        if let Some(context) = self.worker.get() {
            self.run_interrupt_hook(context, context.take_signals().bits);
        }
    }

    fn run_interrupt_hook(&self, context: &WorkerContext, signals: u32) {
        if signals & QUICK != 0 {
            self.hook("worker_int", &[i64::from(std::process::id()), context.age as i64]);
        }
    }

    /// Handles the signals that arrived, and passes them to the worker.
    fn deliver_signals(&self) {
        let Some(context) = self.worker.get().filter(|_| !fork::is_child()) else { return };
        let taken = context.take_signals();
        let bits = taken.bits;
        if let Some(access) = &context.access_log {
            access.on_timer();
        }
        if bits & REOPEN != 0 {
            self.reopen(context);
        }
        self.run_interrupt_hook(context, bits);
        if bits & GRACEFUL != 0
            && !self.drains.swap(true, Ordering::AcqRel)
            && let Some(hooks) = self.hooks.get()
        {
            hooks.app.drain();
        }
        let delivered = with_worker(|worker| {
            for (bit, handle) in [
                (REOPEN, WorkerBox::handle_usr1 as fn(&WorkerBox)),
                (WINDOW, WorkerBox::handle_winch),
                (GRACEFUL, WorkerBox::handle_exit),
                (QUICK, WorkerBox::handle_quit),
            ] {
                if bits & bit != 0 {
                    handle(worker);
                }
            }
        });
        if delivered.is_none() && bits != 0 {
            tracing::error!(
                "signals not delivered to the worker: deliver_signals was called outside its main thread"
            );
        }
        // Last: if a handler of the application hangs, the worker is already ending.
        if taken.application
            && let Some(hooks) = self.hooks.get()
        {
            hooks.app.run_signal_handlers();
            fork::end_if_child();
        }
    }

    fn reopen(&self, context: &WorkerContext) {
        let access = context.access_log.as_ref().map_or(Ok(()), log::AccessLog::reopen);
        for result in [self.log.reopen(), access] {
            if let Err(error) = result {
                tracing::warn!("log not reopened, the old file stays in use: {error}");
            }
        }
    }

    fn log(&self, level: LogLevel, target: &str, message: &str) {
        self.log.write(severity(level), target, message);
    }

    /// Logs a stack: through the arbiter in a worker that serves, which is to spend neither time nor memory on names.
    fn log_stack(&self, level: LogLevel, target: &str, heading: &str, addresses: &[usize]) {
        let level = severity(level);
        if !self.log.enabled(level) {
            return;
        }
        let stack = Stack::new(addresses);
        let fingerprint = stack.fingerprint();
        let serving = self.worker.get().filter(|worker| worker.is_ready() && !fork::is_child());
        if serving.is_some() && self.stacks.insert(fingerprint) {
            let message = format!("{heading}: stack {fingerprint:08x} again");
            return self.log.write(level, target, &message);
        }
        let (target, heading) = (shorten(target), shorten(heading));
        let report = StackReport { level, target, heading, mold: self.mold, stack };
        let pid = std::process::id();
        match serving {
            None => report.log_named(&self.log, pid),
            Some(worker) => {
                if let Err(report) = worker.report_stack(report) {
                    report.log_unnamed(&self.log, pid);
                }
            }
        }
    }
}

fn severity(level: LogLevel) -> settings::LogLevel {
    match level {
        LogLevel::CRITICAL => settings::LogLevel::Critical,
        LogLevel::ERROR => settings::LogLevel::Error,
        LogLevel::WARNING => settings::LogLevel::Warning,
        LogLevel::INFO => settings::LogLevel::Info,
        _ => settings::LogLevel::Debug,
    }
}

/// Registers the worker to which signals are delivered. Called once, on the worker's main thread.
pub fn register_worker(worker: &'static WorkerBox) {
    WORKER.set(Some(worker));
}

fn with_worker(act: impl FnOnce(&WorkerBox)) -> Option<()> {
    WORKER.get().map(act)
}

thread_local! {
    /// Set on the worker's main thread only: the worker belongs to that thread.
    static WORKER: std::cell::Cell<Option<&'static WorkerBox>> = const { std::cell::Cell::new(None) };
}

/// The services of one plugin.
struct PluginHost {
    services: &'static Services,
    section: String,
}

impl PluginHost {
    /// Runs `act` in a worker. The mold, and a child that the application has forked, have nothing to act on.
    /// A panic of the host is logged by the panic hook and yields the default value.
    fn in_worker<T: Default>(&self, act: impl FnOnce(&WorkerContext) -> T) -> T {
        if fork::is_child() {
            return T::default();
        }
        let act = || self.services.worker.get().map(act).unwrap_or_default();
        catch("a service of the host", act).unwrap_or_default()
    }
}

impl RawHost for PluginHost {
    fn setting(&self, name: RStr<'_>) -> ROption<Value> {
        catch("Host::setting", || self.services.setting(&name)).unwrap_or_default().into()
    }

    fn section(&self) -> RString {
        self.section.as_str().into()
    }

    fn setting_file(&self, name: RStr<'_>) -> RResult<ROption<RVec<u8>>, Failure> {
        let contents = catch("Host::setting_file", || self.services.setting_file(&name));
        contents.and_then(|contents| contents).map(|file| file.map(RVec::from).into()).into()
    }

    fn listeners(&self) -> RVec<Listener> {
        self.services.listeners.clone().into()
    }

    fn close_listeners(&self) {
        self.in_worker(WorkerContext::close_listeners);
    }

    fn remaining_backlog(&self, listener: i32) -> u64 {
        self.in_worker(|worker| worker.remaining_backlog(listener))
    }

    fn spawn_index(&self) -> u64 {
        self.in_worker(|worker| worker.age)
    }

    fn arbiter_pid(&self) -> i32 {
        self.services.arbiter_pid
    }

    fn notify(&self) {
        self.in_worker(|worker| {
            worker.notify();
            if worker.is_upkeep_due() {
                worker.reclaim_signals();
                if let Some(names) = self.services.names.get() {
                    names.refresh();
                }
            }
            if let Some(access) = &worker.access_log {
                access.flush_due();
            }
        });
        // Modules that a first request imports belong to the application, too.
        if !fork::is_child() {
            self.services.report_files(true);
        }
    }

    fn alive(&self) -> bool {
        self.in_worker(WorkerContext::alive)
    }

    fn stop(&self) {
        self.in_worker(WorkerContext::stop);
    }

    fn retire(&self) {
        self.in_worker(|worker| worker.retire("max_requests"));
    }

    fn retire_for(&self, reason: RStr<'_>) {
        self.in_worker(|worker| worker.retire(&reason));
    }

    fn wake_descriptor(&self) -> i32 {
        use std::os::fd::AsRawFd as _;
        self.services.worker.get().map_or(-1, |worker| worker.wake_fd().as_raw_fd())
    }

    fn deliver_signals(&self) {
        // A panic of the host is logged by the panic hook; the signals are lost, but not the worker.
        let _ = catch("Host::deliver_signals", || self.services.deliver_signals());
    }

    fn count(&self, counter: Counter, by: i64) {
        self.in_worker(|worker| request::count(worker.slot, counter, by));
    }

    fn request_started(&self, head: &RequestHead<'_>) -> u32 {
        let token = self.in_worker(|worker| {
            request::began(worker.slot, head, self.services.settings.status_queries)
        });
        if let Some(hooks) = self.services.request_hooks() {
            hooks.pre_request(head);
        }
        token
    }

    fn request_ended(&self, token: u32, record: &AccessRecord<'_>) {
        self.in_worker(|worker| {
            request::ended(worker.slot, worker.access_log.as_ref(), token, record);
        });
        if let Some(hooks) = self.services.request_hooks() {
            hooks.post_request(record);
        }
    }

    fn wants_response_headers(&self) -> bool {
        self.in_worker(|worker| {
            worker.access_log.as_ref().is_some_and(log::AccessLog::wants_response_headers)
        })
    }

    fn log_level(&self) -> u8 {
        match self.services.settings.loglevel {
            settings::LogLevel::Critical => LogLevel::CRITICAL,
            settings::LogLevel::Error => LogLevel::ERROR,
            settings::LogLevel::Warning => LogLevel::WARNING,
            settings::LogLevel::Info => LogLevel::INFO,
            settings::LogLevel::Debug => LogLevel::DEBUG,
        }
        .0
    }

    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>) {
        // An error is ignored: there is no other place to report that the log cannot be written.
        let _ = catch("Host::log", || self.services.log(LogLevel(level), &target, &message));
    }

    fn log_stack(
        &self,
        level: u8,
        target: RStr<'_>,
        heading: RStr<'_>,
        addresses: RSlice<'_, usize>,
    ) {
        // As above.
        let _ = catch("Host::log_stack", || {
            self.services.log_stack(LogLevel(level), &target, &heading, &addresses);
        });
    }

    fn tls(&self, protocols: RSlice<'_, RStr<'_>>) -> RResult<TlsBox, Failure> {
        let host = Host::from_raw(self.services.for_plugin(&toml::Table::new()));
        let protocols: Vec<&str> = protocols.iter().map(RStr::as_str).collect();
        catch_flat("Host::tls", || tls::configure(&host, &protocols)).into()
    }

    fn write_log(&self, target: RStr<'_>, text: RSlice<'_, u8>) {
        // See above.
        let _ = catch("Host::write_log", || self.services.log.write_text(&target, &text));
    }

    fn logged_variables(&self) -> RVec<RString> {
        self.in_worker(|worker| {
            let access = worker.access_log.as_ref();
            let names = access.map(log::AccessLog::variables).unwrap_or_default();
            names.into_iter().map(RString::from).collect()
        })
    }

    fn set_logged_variable(&self, request: u64, name: RStr<'_>, value: RSlice<'_, u8>) {
        self.in_worker(|worker| {
            if let Some(access) = &worker.access_log {
                access.set_variable(request, &name, &value);
            }
        });
    }

    fn on_signal(&self, signal: i32) {
        self.in_worker(|worker| worker.act_on_signal(signal));
    }

    fn reclaim_signals(&self) {
        self.in_worker(WorkerContext::reclaim_signals);
    }

    fn at_abort(&self, task: TaskBox) {
        self.in_worker(|worker| worker.set_abort_task(task));
    }

    fn signal_descriptor(&self) -> i32 {
        self.services.worker.get().map_or(-1, WorkerContext::signal_writer)
    }
}

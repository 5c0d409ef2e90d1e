//! The production payload: a worker class and an application, opened through the stable ABI in the mold and run
//! in its workers.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;

use worker_api::abi::sabi_trait::TD_Opaque;
use worker_api::abi::std_types::{RResult, RSlice, RStr, RString, RVec};
use worker_api::fork;
use worker_api::raw::{
    AppBox, EngineBox, ExchangeBox, HooksBox, RawApp, RawApp_TO, RuntimeBox, WorkerBox,
};
use worker_api::{Capabilities, Failure, FailureKind, RawAppContext, Requirements};

use super::error::{LoadError, one_line};
use super::files::LoadedFiles;
use super::kind::Kind;
use super::load::{Plugin, name_of_runtime, open_app, open_app_in_workers, open_class, open_hooks};
use super::module::{AppModule, ClassModule};
use super::names::{LibraryName, LibraryNames};
use super::search::{SearchPath, is_python};
use super::services::{Services, register_worker};
use crate::interpreter::Program;
use crate::log::AccessFormat;
use crate::message::{Loaded, Refusal};
use crate::payload::{MoldContext, Payload};
use crate::process;
use crate::settings::{Interface, Load, Origin, Settings};
use crate::worker::{WorkerContext, at_abort};

/// The contents of a generation. `C` determines where its worker class comes from.
pub struct Plugins<C = FromLibrary> {
    settings: Arc<Settings>,
    services: &'static Services,
    class: Plugin<ClassModule>,
    app_module: Plugin<AppModule>,
    app: &'static AppBox,
    names: Arc<LibraryNames>,
    /// Whether the application has started threads while it was loaded.
    app_has_threads: bool,
    source: PhantomData<C>,
}

/// Source of the worker class. Always [`FromLibrary`] in production; the benchmarks link one in, to measure the
/// cost of having it in a library.
pub trait ClassSource {
    /// Opens the class at the configured path.
    fn open(path: &Path) -> Result<Plugin<ClassModule>, LoadError>;
}

/// Opens the library at that path.
pub struct FromLibrary;

impl ClassSource for FromLibrary {
    fn open(path: &Path) -> Result<Plugin<ClassModule>, LoadError> {
        open_class(path)
    }
}

impl<C: ClassSource> Payload for Plugins<C> {
    fn load(context: &MoldContext, doing: &dyn Fn(&str)) -> Result<Self, Refusal> {
        Self::open(context, doing).map_err(|error| refusal(&error))
    }

    fn interpreter(settings: &Settings) -> Option<Program> {
        is_python(settings).then(|| Program::find(settings))
    }

    fn loaded(&self) -> Loaded {
        Loaded {
            class: self.class.root.name().to_string(),
            class_version: self.class.root.version().to_string(),
            app: self.app_module.root.name().to_string(),
            worker_api: self.class.api_version.clone(),
            libraries: self.names.describe(),
        }
    }

    fn starts_threads(&self) -> Option<&Path> {
        let can_load_later = self.app_has_threads && !is_python(&self.settings);
        can_load_later.then_some(self.app_module.path.as_path())
    }

    fn check(&self) -> Result<(), Refusal> {
        if let AppModule::Late(late) = self.app_module.root {
            late.open_here();
        }
        self.load_application().map_err(|error| refusal(&error))
    }

    fn hook(&self, event: &str, facts: &[i64]) {
        self.services.hook(event, facts);
    }

    fn wait(&self, descriptor: RawFd) {
        self.app.wait_in_mold(descriptor);
    }

    fn before_fork(&mut self) {
        self.app.before_fork();
    }

    fn after_fork_parent(&mut self) {
        self.app.after_fork(false);
    }

    fn after_fork_child(&mut self) {
        self.names.refresh();
        self.app.after_fork(true);
    }

    fn prepare_naming(&self) {
        self.names.refresh();
    }

    fn run_worker(self, mut context: WorkerContext) -> i32 {
        // Plugins keep references to the objects they were given until the process exits.
        let plugins = ManuallyDrop::new(self);
        plugins.set_access_log_format(&mut context);
        let context = plugins.services.enter(context);
        let facts = [i64::from(std::process::id()), context.age as i64];
        let services = plugins.services;
        at_abort(move || services.hook("worker_abort", &facts));
        let booted = plugins.boot();
        fork::end_if_child();
        let worker = match booted {
            Ok(worker) => worker,
            Err(error) => {
                context.boot_failed(refusal(&error));
                return error.exit_status();
            }
        };
        plugins.services.hook("post_worker_init", &facts);
        plugins.services.report_files(true);
        context.reclaim_signals();
        context.ready_with_first_heartbeat();
        let outcome = worker.run().into_result();
        fork::end_if_child();
        if let Err(failure) = &outcome
            && !context.is_ready()
        {
            return plugins.report_failed_start(context, failure.clone());
        }
        plugins.services.take_last_signals();
        plugins.services.hook("worker_exit", &facts);
        plugins.app.shutdown();
        if let Some(access) = &context.access_log {
            access.flush();
        }
        match outcome {
            Ok(()) => 0,
            Err(failure) => {
                log_details(&failure);
                context.leave_last_words(&one_line(&failure));
                RUN_ERROR
            }
        }
    }
}

impl<C: ClassSource> Plugins<C> {
    /// Does everything up to the first fork.
    fn open(context: &MoldContext, doing: &dyn Fn(&str)) -> Result<Self, LoadError> {
        let doing = |path: &Path, what: &str| doing(&format!("{}: {what}", path.display()));
        let settings = Arc::clone(&context.settings);
        let search = SearchPath::of_server(&settings.program, &settings.start_directory);
        let class = search.class(settings.class())?;
        if let (false, Some(file)) = (settings.has_application, &settings.file) {
            return Err(LoadError::NoApplication { file: file.clone() });
        }
        doing(&class, "opening the worker class");
        let mut class = C::open(&class)?;
        let plugin = plugin_for(settings.interface, class.root.guest_loop());
        let choice = search.app(settings.wsgi_app.as_deref(), &settings.chdir, plugin)?;
        if settings.load == Load::Worker && is_python(&settings) {
            return Err(LoadError::PythonInWorker);
        }
        doing(&choice.library, "opening the application");
        let mut threads = ThreadsOfApplication::default();
        let mut app_module = threads.of(|| match settings.load {
            Load::Mold => open_app(&choice.library),
            Load::Worker => open_app_in_workers(&choice.library),
        })?;
        let services = Services::of_mold(context);
        let class_name = class.root.name();

        let host = services.for_plugin(&class_section(&settings, class_name));
        let refused = |kind, path: &Path| {
            let path = path.to_owned();
            move |failure| LoadError::Refused { kind, path, failure }
        };
        doing(&class.path, "setting up the worker class");
        class.root.setup(host).map_err(refused(Kind::Class, &class.path))?;

        let host = services.for_plugin(&settings.sections.application);
        let app_context = RawAppContext {
            spec: choice.spec.into(),
            class: class_name.into(),
            guest_loop: class.root.guest_loop().into(),
        };
        doing(&app_module.path, "creating the application");
        let app = threads
            .of(|| app_module.root.create(host, app_context))
            .map_err(refused(Kind::App, &app_module.path))?;
        check_requirements(&app, &class, &app_module.path)?;
        let app: &'static AppBox = Box::leak(Box::new(app));
        let libraries = [&class.path, &app_module.path].into_iter();
        let libraries = libraries.chain(&class.private).chain(&app_module.private);
        let libraries = libraries.cloned().collect();
        services.set_loaded(LoadedFiles::new(app, libraries));
        if settings.preload_app {
            doing(&app_module.path, "loading the application");
            threads.of(|| app.load().into_result()).map_err(|failure| {
                services.report_files(false);
                refused(Kind::App, &app_module.path)(failure)
            })?;
        }
        let hooks = open_hook_plugin(&settings, services, &doing)?;
        let (hooks, names_of_hooks) = hooks.unzip();
        services.set_hooks(hooks, app);
        let names = [
            (Kind::Class, std::mem::take(&mut class.names)),
            (Kind::App, std::mem::take(&mut app_module.names)),
            (Kind::Hooks, names_of_hooks.unwrap_or_default()),
        ];
        let runtime = context.runtime.as_ref().and_then(name_of_runtime);
        let names = names.into_iter().flat_map(|(kind, names)| {
            let kinds = std::iter::once(Some(kind)).chain(std::iter::repeat(None));
            kinds.zip(names)
        });
        let late = app_module.root.late_names();
        let names = names.chain(runtime.map(|name| (None, name)));
        let names = Arc::new(LibraryNames::new(names.collect(), late));
        // From now on a mold only waits and does not check the files.
        names.use_copies();
        services.set_library_names(Arc::clone(&names));
        let app_has_threads = threads.0 > 0;
        let source = PhantomData;
        Ok(Self { settings, services, class, app_module, app, names, app_has_threads, source })
    }

    /// Sets the access log to the class's format, unless the operator chose one.
    fn set_access_log_format(&self, context: &mut WorkerContext) {
        let format = self.class.root.access_log_format();
        let chosen = self.settings.origin("access_log_format") != Some(&Origin::Default);
        let Some(access) = context.access_log.as_mut().filter(|_| !chosen && !format.is_empty())
        else {
            return;
        };
        match AccessFormat::compile(format) {
            Ok(format) => access.set_format(format),
            Err(error) => tracing::warn!(
                "the worker class's access log format is invalid and not used: {error}"
            ),
        }
    }

    /// Loads the application, unless the mold has done so.
    fn load_application(&self) -> Result<(), LoadError> {
        let is_late = matches!(self.app_module.root, AppModule::Late(_));
        if self.settings.preload_app && !is_late {
            return Ok(());
        }
        let path = self.app_module.path.clone();
        let failed = |failure| LoadError::Boot { kind: Kind::App, path, failure };
        self.app.load().into_result().map_err(|failure| {
            self.services.report_files(false);
            failed(failure)
        })?;
        if is_late {
            check_requirements(self.app, &self.class, &self.app_module.path)?;
        }
        Ok(())
    }

    /// Reports that the worker's loop ended before its first heartbeat.
    fn report_failed_start(&self, context: &WorkerContext, failure: Failure) -> i32 {
        let path = self.class.path.clone();
        let error = LoadError::Boot { kind: Kind::Class, path, failure };
        context.boot_failed(refusal(&error));
        error.exit_status()
    }

    /// Does everything from the fork until the worker can serve.
    fn boot(&self) -> Result<&'static WorkerBox, LoadError> {
        self.load_application()?;
        let section = class_section(&self.settings, self.class.root.name());
        let host = self.services.for_plugin(&section);
        let app = RawApp_TO::from_value(Shared(self.app), TD_Opaque);
        let failed =
            |failure| LoadError::Boot { kind: Kind::Class, path: self.class.path.clone(), failure };
        let worker = self.class.root.create(host, app).map_err(&failed)?;
        let worker: &'static WorkerBox = Box::leak(Box::new(worker));
        register_worker(worker);
        worker.init_process().into_result().map_err(failed)?;
        Ok(worker)
    }
}

/// Number of threads that the application's code has started and not ended.
#[derive(Default)]
struct ThreadsOfApplication(usize);

impl ThreadsOfApplication {
    /// Runs code of the application.
    fn of<T>(&mut self, run: impl FnOnce() -> T) -> T {
        let before = process::thread_count();
        let outcome = run();
        self.0 += process::thread_count().saturating_sub(before);
        outcome
    }
}

/// Returns the name of the plugin for a Python application: that of its interface, which depends on the class's guest loop
/// unless the operator has chosen it.
fn plugin_for(interface: Interface, guest_loop: &str) -> &'static str {
    match interface {
        Interface::Asgi => "asgi",
        Interface::Auto if guest_loop == "asyncio" => "asgi",
        Interface::Auto | Interface::Wsgi => "wsgi",
    }
}

/// Opens the hook plugin if the setting `hooks_module` names a library; other names are for the application.
fn open_hook_plugin(
    settings: &Settings,
    services: &'static Services,
    doing: &dyn Fn(&Path, &str),
) -> Result<Option<(HooksBox, Vec<LibraryName>)>, LoadError> {
    let named = settings.hooks_module.as_deref().map(Path::new);
    let Some(path) = named.filter(|path| path.extension().is_some_and(|end| end == "so")) else {
        return Ok(None);
    };
    doing(path, "opening the hooks");
    let plugin = open_hooks(path)?;
    tracing::info!("Using hooks: {} {}", plugin.root.name(), plugin.root.version());
    let host = services.for_plugin(&settings.sections.hooks);
    let hooks = plugin.root.create(host).map_err(|failure| LoadError::Refused {
        kind: Kind::Hooks,
        path: path.to_owned(),
        failure,
    })?;
    Ok(Some((hooks, plugin.names)))
}

/// Refuses an application whose requirements the class does not meet.
fn check_requirements(
    app: &AppBox,
    class: &Plugin<ClassModule>,
    path: &Path,
) -> Result<(), LoadError> {
    let (needs, capabilities) = (Requirements(app.requirements()), class.root.capabilities());
    let lacking = [
        (Requirements::DEFERRED, Capabilities::DEFERRED, "responds after its call has returned"),
        (Requirements::LOOP, Capabilities::LOOP, "runs its own event loop"),
    ]
    .into_iter()
    .find(|(need, ability, _)| needs.contains(*need) && capabilities & ability.0 == 0);
    match lacking {
        None => Ok(()),
        Some((_, _, need)) => Err(LoadError::Requirements {
            path: path.to_owned(),
            need,
            class: class.root.name().to_string(),
        }),
    }
}

/// Returns the section of the settings file for the class of that name.
fn class_section(settings: &Settings, class: &str) -> toml::Table {
    let section = settings.sections.class.get(class).and_then(toml::Value::as_table);
    section.cloned().unwrap_or_default()
}

/// Logs the parts of a failure that do not fit into one line: tracebacks.
fn log_details(failure: &Failure) {
    for cause in failure.chain.iter().filter(|cause| cause.trim_end().contains('\n')) {
        tracing::error!("{cause}");
    }
}

/// Converts an error to the arbiter's form. The parts that do not fit into one line are logged here.
fn refusal(error: &LoadError) -> Refusal {
    if let Some(failure) = error.failure() {
        log_details(failure);
    }
    let reason: String = error.to_string().chars().take(REASON_MAX).collect();
    let is_other_interface =
        error.failure().is_some_and(|failure| failure.kind == FailureKind::INTERFACE);
    Refusal { is_other_interface, ..Refusal::new(reason, error.exit_status()) }
}

/// The application as passed to the worker class; the host keeps it, too.
struct Shared(&'static AppBox);

impl RawApp for Shared {
    fn requirements(&self) -> u64 {
        self.0.requirements()
    }

    fn load(&self) -> RResult<(), Failure> {
        self.0.load()
    }

    fn before_fork(&self) {
        self.0.before_fork();
    }

    fn after_fork(&self, in_child: bool) {
        self.0.after_fork(in_child);
    }

    fn init_worker(&self, runtime: RuntimeBox) -> RResult<(), Failure> {
        self.0.init_worker(runtime)
    }

    fn call(&self, exchange: ExchangeBox) {
        self.0.call(exchange);
        fork::end_if_child();
    }

    fn run_loop(&self, engine: EngineBox) -> RResult<(), Failure> {
        let result = self.0.run_loop(engine);
        fork::end_if_child();
        result
    }

    fn hook(&self, event: RStr<'_>, facts: RSlice<'_, i64>) -> RResult<(), Failure> {
        self.0.hook(event, facts)
    }

    fn trace(&self) -> RString {
        self.0.trace()
    }

    fn files(&self) -> RVec<RString> {
        self.0.files()
    }

    fn shutdown(&self) {
        self.0.shutdown();
    }

    fn drain(&self) {
        self.0.drain();
    }

    fn stack_size(&self) -> u64 {
        self.0.stack_size()
    }

    fn run_signal_handlers(&self) {
        self.0.run_signal_handlers();
    }

    fn wait_in_mold(&self, descriptor: i32) {
        self.0.wait_in_mold(descriptor);
    }
}

/// Exit status of a worker whose class failed after it had become ready.
const RUN_ERROR: i32 = 1;
/// Longest reason in characters. At 4 bytes at most, or 2 if escaped, they fit into one message to the arbiter.
const REASON_MAX: usize = 1500;

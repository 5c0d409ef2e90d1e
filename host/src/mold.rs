//! The mold: the process of a generation that loads its payload and forks its workers.
//!
//! ```text
//!     arbiter ──fork──▶ mold ──fork──▶ (intermediate) ──fork──▶ worker
//!        ▲                              exits at once              │
//!        └─────────────────── adopts, reaps ───────────────────────┘
//! ```
//!
//! Whatever a plugin does wrong while it loads, it does here. The mold has no state that matters: if it dies, the
//! arbiter starts another one for the same generation.

use std::io::Read as _;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::exit_status::{APP_LOAD_ERROR, EX_CONFIG};
use crate::hooks::{CHILD_EXIT, Commands, WORKER_ABORT};
use crate::interpreter::{self, Handover, Program, Purpose};
use crate::limits;
use crate::listener;
use crate::log::{ErrorLog, log_panics};
use crate::message::{Channel, FromMold, Loaded, Received, Refusal, ToMold};
use crate::namer::Namer;
use crate::payload::{MoldContext, Payload};
use crate::privileges::{self, Identity};
use crate::process::{self, Twice};
use crate::safe_path::open_private;
use crate::scoreboard::{MoldSlots, Scoreboard, SlotMemory};
use crate::settings::Settings;
use crate::stack::StackReport;
use crate::title;
use crate::worker::entry::{self, WorkerStart, panic_text};

/// What a new mold gets from the arbiter.
pub struct MoldStart {
    /// Settings and resources of the generation.
    pub context: MoldContext,
    /// The mold's end of its channel to the arbiter.
    pub command: Channel,
    /// The workers' end of the generation's channel to the arbiter.
    pub report: Channel,
    /// The scoreboard, which the mold unmaps before it loads anything.
    pub scoreboard: Arc<Scoreboard>,
    /// Memory of the mold's own slot.
    pub slot: SlotMemory,
    /// Descriptors to keep besides those of the fields above.
    pub keep: Vec<RawFd>,
}

impl MoldStart {
    /// Returns the descriptors that the mold has after the fork, besides the standard streams.
    fn descriptors(&self) -> Vec<RawFd> {
        let MoldContext { listeners, access, watcher, .. } = &self.context;
        let mut descriptors = self.keep.clone();
        descriptors.extend(listeners.iter().map(|listener| listener.descriptor()));
        descriptors.extend(access.as_ref().map(|file| file.as_fd().as_raw_fd()));
        descriptors.extend(watcher.as_ref().map(|watcher| descriptor_of(watcher)));
        descriptors.extend([&self.command, &self.report].map(descriptor_of));
        descriptors.extend(self.slot.descriptor().map(AsRawFd::as_raw_fd));
        descriptors.extend(self.scoreboard.inherited_file().as_ref().map(AsRawFd::as_raw_fd));
        descriptors
    }
}

/// State of a running mold.
struct Inside {
    context: MoldContext,
    command: Channel,
    report: Channel,
    slots: MoldSlots,
    namer: Namer,
}

/// Main function of a mold for one kind of payload: the arbiter calls it in the forked process.
pub type MoldMain = fn(MoldStart) -> !;

/// Runs a mold. Called right after the fork, while all signals are still blocked.
pub fn run<P: Payload>(start: MoldStart) -> ! {
    process::begin_forked(start.descriptors());
    let MoldStart { context, command, report, scoreboard, slot, .. } = start;
    let slots = match Scoreboard::leave(scoreboard, slot) {
        Ok(slots) => slots,
        Err(error) => {
            let reason = format!("cannot map the mold's slot of the scoreboard: {error}");
            send(&command, &FromMold::Refused(Refusal::new(reason, EX_CONFIG)));
            process::exit_now(EX_CONFIG);
        }
    };
    let mut start = Inside { context, command, report, slots, namer: Namer::default() };
    if let Err(refusal) = prepare(&mut start) {
        refuse(&start.command, refusal);
    }
    match P::interpreter(&start.context.settings) {
        Some(program) => refuse(&start.command, execute(program, &start)),
        None => serve::<P>(start),
    }
}

/// Continues in the interpreter that a mold, or a check of the settings, has executed; `state` is the descriptor of its
/// [`Handover`]. Called on the main thread of a new process. Returns only if that is not possible: the reason.
pub fn resume<P: Payload>(state: RawFd) -> String {
    process::settle_signals();
    let (context, purpose) = match Handover::read(state).and_then(Handover::restore) {
        Ok(restored) => restored,
        Err(error) => return error.to_string(),
    };
    log_panics();
    match purpose {
        Purpose::Check => process::exit_now(check::<P>(&context)),
        Purpose::Serve { command, report, slots } => {
            title::set(&context.settings, "mold");
            let mut start = Inside { context, command, report, slots, namer: Namer::default() };
            if let Err(refusal) = prepare_process(&mut start.context) {
                refuse(&start.command, refusal);
            }
            serve::<P>(start)
        }
    }
}

/// Executes the interpreter. Returns only if that fails.
fn execute(program: Program, start: &Inside) -> Refusal {
    send(&start.command, &FromMold::Loading(format!("{program}: starting the interpreter")));
    let Inside { context, command, report, slots, .. } = start;
    let error = interpreter::execute(program, &context.settings, Some(command), |runtime| {
        Handover::of_mold(context, command, report, slots, runtime)
    });
    Refusal::new(error.to_string(), APP_LOAD_ERROR)
}

fn refuse(command: &Channel, refusal: Refusal) -> ! {
    let status = refusal.status;
    send(command, &FromMold::Refused(refusal));
    process::exit_now(status)
}

/// Loads the payload and forks workers, until the arbiter says otherwise.
fn serve<P: Payload>(mut start: Inside) -> ! {
    let mold = std::process::id();
    start.slots.keep_process();
    let loaded = load::<P>(&start.context, &|what| {
        send(&start.command, &FromMold::Loading(what.to_owned()));
    });
    end_if_copy(mold);
    let mut payload = loaded.unwrap_or_else(|refusal| refuse(&start.command, refusal));
    send(&start.command, &FromMold::Loaded(payload.loaded()));
    warn_of_threads(&payload);
    let event = if start.context.generation == 1 { "on_starting" } else { "on_reload" };
    let workers = start.context.settings.workers as i64;
    run_hooks(&payload, &start.context, event, &[workers]);
    loop {
        payload.wait(descriptor_of(&start.command));
        end_if_copy(mold);
        let (received, memory) = match start.command.receive_with::<ToMold>() {
            Ok((received, memory)) => (Ok(received), memory),
            Err(error) => (Err(error), None),
        };
        match received {
            Ok(Received::Message(ToMold::Fork { slot, age }, _)) => {
                let memory = start.slots.memory(slot, memory);
                (payload, start) = fork_worker(payload, start, slot, age, memory);
            }
            Ok(Received::Message(ToMold::Reopen, _)) => reopen_logs(&start.context),
            Ok(Received::Message(ToMold::Hook { event, facts }, _)) => {
                if let (CHILD_EXIT, [pid, ..]) = (&*event, &*facts) {
                    send(&start.command, &FromMold::ExitRead { pid: *pid as i32 });
                }
                run_hooks(&payload, &start.context, &event, &facts);
            }
            Ok(Received::Message(ToMold::Stack { pid, report }, _)) => {
                start = name_stack(&payload, start, pid, *report);
                send(&start.command, &FromMold::StackTaken);
            }
            Ok(Received::Message(ToMold::ReleaseListeners, _)) => {
                // Their descriptors are closed: they must not be dropped.
                let released = ManuallyDrop::new(std::mem::take(&mut start.context.listeners));
                listener::close_copies(&released);
            }
            Ok(Received::Message(ToMold::Quit, _) | Received::Closed) => process::exit_now(0),
            Ok(Received::Garbled(_) | Received::Nothing) => {}
            Err(error) => {
                tracing::error!("the mold cannot read from the arbiter: {error}");
                process::exit_now(1);
            }
        }
    }
}

fn warn_of_threads<P: Payload>(payload: &P) {
    let threads = process::thread_count().saturating_sub(1);
    let plural = if threads == 1 { "" } else { "s" };
    match payload.starts_threads() {
        _ if threads == 0 => {}
        None => {
            tracing::warn!(
                "loading has started {threads} thread{plural}, which workers do not inherit"
            );
        }
        Some(library) => tracing::warn!(
            "loading has started {threads} thread{plural}, which workers do not inherit: {} starts threads when it \
             is opened; load = \"worker\" opens it in each worker instead",
            library.display()
        ),
    }
}

/// Exits if a plugin has forked this process and returned in it: it would read messages that are meant for the
/// mold.
fn end_if_copy(mold: u32) {
    if std::process::id() != mold {
        process::exit_now(0);
    }
}

/// Loads a payload and its application as a mold and its workers do, but in this process and without listeners, to check
/// the settings, and prints the result. Returns the exit status.
pub fn try_load<P: Payload>(settings: Arc<Settings>, log: Arc<ErrorLog>) -> i32 {
    let context = MoldContext {
        files: read_private_files(&settings),
        settings,
        generation: 1,
        listeners: Vec::new(),
        arbiter_pid: Pid::this(),
        log,
        access: None,
        commands: Commands::default(),
        runtime: None,
        watcher: None,
    };
    let Some(program) = P::interpreter(&context.settings) else { return check::<P>(&context) };
    let error = interpreter::execute(program, &context.settings, None, |runtime| {
        Handover::of_check(&context, runtime)
    });
    eprintln!("error: {error}");
    APP_LOAD_ERROR
}

fn check<P: Payload>(context: &MoldContext) -> i32 {
    let loaded = load::<P>(context, &|_| {}).and_then(|payload| {
        payload.check()?;
        Ok(payload.loaded())
    });
    match loaded {
        Ok(loaded) => {
            let (interface, Loaded { class, class_version, app, .. }) =
                (loaded.interface(), loaded);
            println!("worker class {class} {class_version} ({interface}), application {app}: OK");
            0
        }
        Err(refusal) => {
            eprintln!("error: {}", refusal.reason);
            refusal.status
        }
    }
}

/// Prepares everything that needs the arbiter's rights, and the process.
fn prepare(start: &mut Inside) -> Result<(), Refusal> {
    let settings = Arc::clone(&start.context.settings);
    let settings = &*settings;
    let context = &mut start.context;
    title::set(settings, "mold");
    std::env::set_current_dir(&settings.chdir).map_err(|error| {
        let directory = settings.chdir.display();
        Refusal::new(format!("cannot change to the directory {directory}: {error}"), EX_CONFIG)
    })?;
    // Before the change of user: the new user may not be allowed to open the file.
    use_log(context).map_err(|reason| Refusal::new(reason, EX_CONFIG))?;
    context.files = read_private_files(settings);
    privileges::drop_to(settings).map_err(|error| Refusal::new(error.to_string(), EX_CONFIG))?;
    process::set_environment(&settings.raw_env);
    prepare_process(context)
}

/// Prepares what does not outlive the execution of another program.
fn prepare_process(context: &mut MoldContext) -> Result<(), Refusal> {
    // After the change of user, which makes the kernel clear this setting.
    if !process::tie_to_parent(context.arbiter_pid, Signal::SIGKILL) {
        process::exit_now(0);
    }
    context.commands = Commands::read(&context.settings.sections.hooks)
        .map_err(|reason| Refusal::new(reason, EX_CONFIG))?;
    Ok(())
}

fn load<P: Payload>(context: &MoldContext, doing: &dyn Fn(&str)) -> Result<P, Refusal> {
    catch_unwind(AssertUnwindSafe(|| P::load(context, doing))).unwrap_or_else(|panic| {
        let text = panic_text(&*panic);
        Err(Refusal::new(format!("panicked while loading: {text}"), EX_CONFIG))
    })
}

fn run_hooks<P: Payload>(payload: &P, context: &MoldContext, event: &str, facts: &[i64]) {
    if event != WORKER_ABORT {
        payload.hook(event, facts);
    }
    // Commands run for exits of workers only; plugins and Python also clean up after a mold, whose age is 0.
    let is_mold_exit = event == CHILD_EXIT && facts.get(1) == Some(&0);
    if !is_mold_exit {
        context.commands.start(event, facts, &context.log);
    }
}

/// Reads files that only root may read, before privileges are dropped.
fn read_private_files(settings: &Settings) -> Vec<(&'static str, std::io::Result<Vec<u8>>)> {
    let user = Identity::of_workers(settings);
    [
        ("certfile", &settings.certfile),
        ("keyfile", &settings.keyfile),
        ("ca_certs", &settings.ca_certs),
    ]
    .into_iter()
    .filter_map(|(name, path)| Some((name, read_private(path.as_ref()?, user.as_ref()))))
    .collect()
}

fn read_private(path: &Path, user: Option<&Identity>) -> std::io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    open_private(path, user)?.read_to_end(&mut contents)?;
    Ok(contents)
}

/// Applies the log settings of this generation, which may differ from the arbiter's.
fn use_log(context: &MoldContext) -> Result<(), String> {
    context.log.apply(&context.settings).map_err(|error| error.to_string())?;
    context.log.be_patient();
    if let Some(file) = &context.access {
        file.be_patient();
    }
    if context.settings.capture_output {
        let captured = context.log.capture_streams();
        captured.map_err(|error| format!("cannot capture output: {error}"))?;
    }
    Ok(())
}

/// Reopens the logs of this process, so that workers forked later have the new files.
fn reopen_logs(context: &MoldContext) {
    if let Err(error) = context.log.reopen() {
        tracing::error!("log not reopened: {error}");
    }
    if let Some(Err(error)) = context.access.as_ref().map(|file| file.reopen()) {
        tracing::error!("log not reopened: {error}");
    }
}

/// Forks a worker that becomes a child of the arbiter, and reports the result. Returns in the mold, and does not
/// return in the worker, which drops what only the mold uses. It closes nothing else: what is open belongs to the
/// server or to plugins.
fn fork_worker<P: Payload>(
    mut payload: P,
    start: Inside,
    slot_number: u32,
    age: u64,
    memory: Option<SlotMemory>,
) -> (P, Inside) {
    let Some(memory) = memory else {
        // The kernel drops a descriptor for which there is no room.
        send(&start.command, &fork_failed(age, &limits::describe(Errno::EMFILE)));
        return (payload, start);
    };
    let pipe = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK);
    let (pid_reader, pid_writer) = match pipe {
        Ok(pipe) => pipe,
        Err(error) => {
            send(&start.command, &fork_failed(age, &limits::describe(error)));
            return (payload, start);
        }
    };
    payload.hook("pre_fork", &[0, age as i64]);
    payload.before_fork();
    let forked = process::fork_twice(|worker| {
        // Not fatal: the worker reports to the arbiter itself.
        let _ = nix::unistd::write(&pid_writer, &worker.as_raw().to_ne_bytes());
    });
    match forked {
        Ok(Twice::Caller(intermediate)) => {
            payload.after_fork_parent();
            drop((pid_writer, memory));
            let message = match process::wait_for_intermediate(intermediate) {
                Ok(()) => FromMold::Forked { age, pid: read_pid(&pid_reader) },
                Err(error) => fork_failed(age, &limits::describe(error)),
            };
            send(&start.command, &message);
            (payload, start)
        }
        Ok(Twice::Grandchild(intermediate)) => {
            let Inside { context, command, report, slots, namer } = start;
            drop((command, namer, pid_reader, pid_writer));
            let slot = slots.own();
            let context = &context;
            let start =
                WorkerStart { context, report, slot, memory, slot_number, age, intermediate };
            entry::run(payload, start)
        }
        Err(error) => {
            payload.after_fork_parent();
            send(&start.command, &fork_failed(age, &limits::describe(error)));
            (payload, start)
        }
    }
}

/// Has the stack of a worker logged. Returns in the mold, and does not return in a new namer, which drops what only
/// the mold uses.
fn name_stack<P: Payload>(payload: &P, mut start: Inside, pid: u32, report: StackReport) -> Inside {
    let Some(process) = start.namer.name(&start.context, pid, report) else { return start };
    let Inside { context, command, report, slots: _, namer } = start;
    drop((command, report, namer));
    process.serve(payload, &context)
}

/// Returns the process ID that the intermediate process has written, or 0.
fn read_pid(pipe: &OwnedFd) -> i32 {
    let mut number = [0; size_of::<i32>()];
    match nix::unistd::read(pipe, &mut number) {
        Ok(length) if length == number.len() => i32::from_ne_bytes(number),
        _ => 0,
    }
}

fn fork_failed(age: u64, reason: &str) -> FromMold {
    FromMold::ForkFailed { age, reason: reason.to_owned() }
}

fn descriptor_of(channel: &Channel) -> RawFd {
    channel.as_raw_fd()
}

fn send(command: &Channel, message: &FromMold) {
    if let Err(error) = command.send(message) {
        tracing::debug!("cannot send {message:?} to the arbiter: {error}");
    }
}

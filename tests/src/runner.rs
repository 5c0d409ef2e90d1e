//! Behaviors as tests: the cells each is run in, its time limit, and how many run at once.

use std::{
    any::Any,
    env,
    ffi::OsString,
    panic::{self, AssertUnwindSafe},
    path::Path,
    process::exit,
    sync::{
        Arc, Condvar, LazyLock, Mutex, OnceLock, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{
    artifacts,
    cell::{App, Cell, Class, Need, python},
    process,
    scene::Scene,
};

/// Something that a server does, and its test.
#[derive(Clone, Debug)]
pub struct Behaviour {
    name: &'static str,
    run: fn(&Cell),
    scope: Scope,
    needs: Vec<Need>,
    condition: Option<Condition>,
    classes: Option<ClassCondition>,
    limit: Duration,
    load: Load,
    gap: Option<&'static str>,
}

/// What the machine must allow, evaluated when a first cell needs it, and the reason to skip the behavior if it does
/// not.
type Condition = (Arc<LazyLock<bool>>, &'static str);

/// Which classes fit, and the reason to skip the others.
type ClassCondition = (fn(&Class) -> bool, &'static str);

/// The cells in which a behavior is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Once: it does not depend on the class.
    Host,
    /// For every class, with the native application.
    Class,
    /// For every class that calls WSGI applications, with one.
    Python,
    /// For every class that calls ASGI applications, with one.
    Asgi,
    /// For every class and every application.
    Cell,
}

/// How much of the machine a behavior takes, which decides how many others run beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Load {
    /// It waits most of the time.
    Light,
    /// It creates load.
    Busy,
    /// It measures, or uses the whole machine.
    Heavy,
}

/// Declares a function as a behavior, for every class and every application.
#[macro_export]
macro_rules! behaviour {
    ($function:ident) => {
        $crate::runner::Behaviour::new(stringify!($function), $function)
    };
}

/// A test that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(60);
/// Number of the slowest tests that are listed at the end.
const SLOWEST_SHOWN: usize = 15;
/// Number of tests that run at once: most of them wait most of the time. `JIMU_TEST_THREADS` overrides it.
const AT_ONCE: usize = 5;
/// Number of threads for each of these: while some tests wait for a turn, the others take the places that are left.
const THREADS_PER_PLACE: usize = 2;

impl Behaviour {
    /// A behavior of every class with every application.
    pub fn new(name: &'static str, run: fn(&Cell)) -> Self {
        Self {
            name,
            run,
            scope: Scope::Cell,
            needs: Vec::new(),
            condition: None,
            classes: None,
            limit: LIMIT,
            load: Load::Light,
            gap: None,
        }
    }

    /// Runs it once: it does not depend on the class.
    #[must_use]
    pub fn of_host(mut self) -> Self {
        self.scope = Scope::Host;
        self
    }

    /// Runs it with the native application: it does not depend on the application.
    #[must_use]
    pub fn of_class(mut self) -> Self {
        self.scope = Scope::Class;
        self
    }

    /// Runs it for every class only with a WSGI application in Python: it is about that.
    #[must_use]
    pub fn of_python(mut self) -> Self {
        self.scope = Scope::Python;
        self
    }

    /// Runs it only with an ASGI application in Python: it is about that.
    #[must_use]
    pub fn of_asgi(mut self) -> Self {
        self.scope = Scope::Asgi;
        self
    }

    /// Skips it for classes that do not support this.
    #[must_use]
    pub fn needs(mut self, need: Need) -> Self {
        self.needs.push(need);
        self
    }

    /// Skips it, for this reason, if the machine does not allow it.
    #[must_use]
    pub fn only_if(mut self, allowed: fn() -> bool, otherwise: &'static str) -> Self {
        self.condition = Some((Arc::new(LazyLock::new(allowed)), otherwise));
        self
    }

    /// Skips it, for this reason, for classes that do not fit.
    #[must_use]
    pub fn only_for(mut self, fits: fn(&Class) -> bool, otherwise: &'static str) -> Self {
        self.classes = Some((fits, otherwise));
        self
    }

    /// Sets its time limit in seconds.
    #[must_use]
    pub fn within(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// It creates load: half as many tests run beside it.
    #[must_use]
    pub fn busy(mut self) -> Self {
        self.load = Load::Busy;
        self
    }

    /// It measures, or uses the whole machine: nothing else runs beside it.
    #[must_use]
    pub fn heavy(mut self) -> Self {
        self.load = Load::Heavy;
        self
    }

    /// It is known not to hold yet, for this reason: its failure counts as skipped, and its success as a
    /// failure, so that the mark is removed when the gap is closed.
    #[must_use]
    pub fn not_yet(mut self, reason: &'static str) -> Self {
        self.gap = Some(reason);
        self
    }

    fn trials(self, classes: &[Class]) -> Vec<Trial> {
        let cell = |class: &Class, app| Cell { class: class.clone(), app };
        let cells: Vec<(String, Cell)> = match self.scope {
            Scope::Host => classes
                .iter()
                .rev()
                .max_by_key(|class| class.name == "sync")
                .into_iter()
                .map(|class| ("host".to_owned(), cell(class, App::Native)))
                .collect(),
            Scope::Class => {
                classes.iter().map(|class| (class.name.clone(), cell(class, App::Native))).collect()
            }
            Scope::Python => Self::with_app(classes, App::Wsgi),
            Scope::Asgi => Self::with_app(classes, App::Asgi),
            Scope::Cell => classes
                .iter()
                .flat_map(|class| App::all(class).into_iter().map(move |app| cell(class, app)))
                .map(|cell| (format!("{}::{}", cell.class.name, cell.app.name()), cell))
                .collect(),
        };
        cells
            .into_iter()
            .map(|(prefix, cell)| {
                let behaviour = self.clone();
                Trial::ignorable_test(format!("{prefix}::{}", self.name), move || {
                    behaviour.run_in(&cell)
                })
            })
            .collect()
    }

    /// Returns the cells with this application, and the start of their tests' names.
    fn with_app(classes: &[Class], app: App) -> Vec<(String, Cell)> {
        let serving = classes.iter().filter(|class| App::all(class).contains(&app));
        serving
            .map(|class| {
                let name = format!("{}::{}", class.name, app.name());
                (name, Cell { class: class.clone(), app })
            })
            .collect()
    }

    fn run_in(self, cell: &Cell) -> Result<Completion, Failed> {
        let _turn = Turn::take(self.load);
        if let Some(need) = self.needs.iter().find(|need| !cell.class.can(**need)) {
            return Ok(Completion::ignored_with(format!("{} has no {need:?}", cell.class.name)));
        }
        if let Some((_, reason)) = self.classes.filter(|(fits, _)| !fits(&cell.class)) {
            return Ok(Completion::ignored_with(reason));
        }
        if let Some((_, reason)) = self.condition.filter(|(allowed, _)| !***allowed) {
            return Ok(Completion::ignored_with(reason));
        }
        if cell.app != App::Native && python().is_none() {
            return Ok(Completion::ignored_with("no Python environment: cargo xtask python"));
        }
        let begun = Instant::now();
        let scene = Scene::default();
        let (done, end) = mpsc::channel();
        let body = {
            let (scene, body_cell) = (scene.clone(), cell.clone());
            move || {
                scene.enter();
                let result = panic::catch_unwind(AssertUnwindSafe(|| (self.run)(&body_cell)));
                let _ = done.send(result.map_err(|payload| message(payload.as_ref())));
            }
        };
        let thread = thread::Builder::new().name(self.name.to_owned()).spawn(body);
        let thread = thread.map_err(|error| format!("no thread: {error}"))?;
        let result = end.recv_timeout(self.limit);
        if result == Err(RecvTimeoutError::Timeout) {
            scene.kill();
            let _ = end.recv_timeout(Duration::from_secs(20));
        } else {
            let _ = thread.join();
        }
        let took = format!("{}::{}::{}", cell.class.name, cell.app.name(), self.name);
        TOOK.lock().unwrap_or_else(PoisonError::into_inner).push((begun.elapsed(), took));
        match (result, self.gap) {
            (Ok(Ok(())), None) => Ok(Completion::Completed),
            (Ok(Ok(())), Some(gap)) => Err(format!("holds now: remove not_yet({gap:?})").into()),
            (_, Some(gap)) => Ok(Completion::ignored_with(format!("not yet: {gap}"))),
            (Ok(Err(message)), None) => Err(scene.failure(&message).into()),
            (Err(_), None) => {
                Err(scene.failure(&format!("took longer than {:?}", self.limit)).into())
            }
        }
    }
}

/// Runs the behaviors as this process's tests, and exits.
pub fn run(behaviours: Vec<Behaviour>) -> ! {
    let (mut arguments, classes) = if artifacts::is_program() {
        of_program(&env::args_os().collect::<Vec<_>>())
    } else {
        artifacts::build();
        (Arguments::from_args(), Class::all())
    };
    process::adopt_orphans();
    let wanted = env::var("JIMU_TEST_THREADS").ok().and_then(|text| text.parse().ok());
    let at_once = arguments.test_threads.or(wanted).unwrap_or(AT_ONCE).max(1);
    PLACES.set(at_once).expect("the behaviors of a process are run once");
    arguments.test_threads = Some(if at_once == 1 { 1 } else { at_once * THREADS_PER_PLACE });
    assert!(!classes.is_empty(), "no worker class in {}", artifacts::directory().display());
    // Behaviors of the server read the source tree, and say nothing about a third party's class.
    let wanted = |behaviour: &Behaviour| !artifacts::is_program() || behaviour.scope != Scope::Host;
    let mut wanted: Vec<Behaviour> = behaviours.into_iter().filter(wanted).collect();
    // In the order of their load: a heavy one among light ones would have to wait until all places are free.
    wanted.sort_by_key(|behaviour| behaviour.load);
    let trials = wanted.into_iter().flat_map(|behaviour| behaviour.trials(&classes)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    show_slowest();
    artifacts::clean_up();
    conclusion.exit()
}

/// Reads the arguments of the program `jimu-matrix`.
fn of_program(words: &[OsString]) -> (Arguments, Vec<Class>) {
    let class = words.get(1).filter(|word| !word.as_encoded_bytes().starts_with(b"-"));
    let Some(class) = class else {
        let asked = words.get(1).is_some_and(|word| word == "--help" || word == "-h");
        eprint!("{PROGRAM_HELP}");
        exit(if asked { 0 } else { 2 });
    };
    let path = Path::new(class).canonicalize().unwrap_or_else(|error| {
        eprintln!("jimu-matrix: {}: {error}", class.display());
        exit(2)
    });
    let options = words.iter().take(1).chain(words.iter().skip(2));
    (Arguments::from_iter(options), vec![Class::at(path)])
}

const PROGRAM_HELP: &str = "\
Usage: jimu-matrix CLASS [OPTIONS] [FILTER]

Run the matrix of behaviors over a worker class, the library CLASS, with a native application.

  FILTER             run only the behaviors whose names contain it
  --exact            FILTER is the whole name
  --skip WORD        leave out the behaviors whose names contain WORD
  --list             list the behaviors instead of running them
  --test-threads N   run N at a time [default: 5]

The variable HOST names the server's executable [default: the `host` beside this program].
";

/// Lists how long each test took, to see where the time of a run goes.
static TOOK: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

fn show_slowest() {
    let mut took = TOOK.lock().unwrap_or_else(PoisonError::into_inner);
    took.sort_unstable();
    for (time, name) in took.iter().rev().take(SLOWEST_SHOWN) {
        println!("{:5.1} s  {name}", time.as_secs_f64());
    }
}

/// The places that a test takes while it runs.
struct Turn(usize);

/// Number of places, set before the first test.
static PLACES: OnceLock<usize> = OnceLock::new();
static TAKEN: Mutex<usize> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

impl Turn {
    /// Waits until there is room beside the tests that run.
    fn take(load: Load) -> Self {
        let all = *PLACES.get().expect("the number is set before the first test");
        let places = match load {
            Load::Light => 1,
            Load::Busy => (all / 2).max(1),
            Load::Heavy => all,
        };
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = GIVEN_BACK
            .wait_while(taken, |taken| *taken + places > all)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += places;
        Self(places)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        GIVEN_BACK.notify_all();
    }
}

/// Returns the message of a panic.
pub fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

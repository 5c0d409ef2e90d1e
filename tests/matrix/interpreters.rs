//! The interpreter of a Python application: which can be used, what the application sees of it, and how one that cannot
//! be used is refused.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use jimu_tests::cell::{self, Cell, Class, Need};
use jimu_tests::runner::Behaviour;
use jimu_tests::server::{Server, Setup};
use jimu_tests::{artifacts, behaviour, executable};
use serde_json::Value;

use crate::python::saying;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    let without_packages = |behaviour: Behaviour| {
        behaviour.of_python().only_for(runs_alone, "its guest loop is a package of one interpreter")
    };
    vec![
        behaviour!(the_application_sees_an_ordinary_interpreter).of_python(),
        behaviour!(multiprocessing_starts_children_in_every_way).of_python().within(90),
        behaviour!(children_of_the_application_inherit_nothing).of_python(),
        behaviour!(options_and_variables_reach_the_interpreter).of_python(),
        behaviour!(functions_for_all_threads_see_requests).of_python(),
        without_packages(behaviour!(a_thread_may_outlive_all_others)),
        without_packages(behaviour!(every_interpreter_serves)).within(90),
        without_packages(behaviour!(an_interpreter_may_be_anywhere)).within(90),
        without_packages(behaviour!(an_interpreter_may_print)),
        behaviour!(what_is_no_interpreter_is_refused).of_python().within(90),
        behaviour!(another_interpreter_takes_effect_at_reload).of_python(),
        behaviour!(a_broken_runtime_leaves_the_service).of_python().within(120),
        behaviour!(the_runtime_is_an_executable).of_python().within(60),
        behaviour!(the_settings_can_be_checked).of_python(),
    ]
}

const SOON: Duration = Duration::from_secs(10);

fn runs_alone(class: &Class) -> bool {
    !class.can(Need::Loops)
}

/// `sys.argv` is the server's command line and `sys.path[0]` its directory, as under gunicorn.
fn the_application_sees_an_ordinary_interpreter(cell: &Cell) {
    let server = Setup::new(cell).app("interpreter").start();
    let python = cell::python().expect("the behavior's condition");
    let facts = facts(&server);
    assert_eq!(facts["executable"], *python.to_string_lossy());
    assert_eq!(facts["prefix"], *prefix_of(&python).to_string_lossy());
    assert_eq!(facts["argv"][0], *artifacts::executable("host").to_string_lossy());
    assert!(facts["argv"].to_string().contains("--worker-class"), "{facts}");
    // Before it is what `--pythonpath` names.
    let directory = server.dir().canonicalize().unwrap();
    assert_eq!(facts["path"][0], *cell::apps().to_string_lossy());
    assert_eq!(facts["path"][1], *directory.to_string_lossy());
    assert_eq!(facts["empty"], false);
    assert!(facts["at_import"]["SIGPIPE"].to_string().contains("SIG_IGN"), "{facts}");
    assert!(!facts["at_import"].to_string().contains("default_int_handler"), "{facts}");
    if runs_alone(&cell.class) && !cell.class.has_threads() {
        assert_eq!(facts["main"], true);
    }
    server.stop();
}

fn multiprocessing_starts_children_in_every_way(cell: &Cell) {
    let server = Setup::new(cell).app("interpreter").start();
    let worker = server.until_ready_workers(1)[0];
    // The sockets of eventlet cannot pass descriptors, which the fork server needs, so Python does not offer it.
    let methods: &[&str] = match &*cell.class.name {
        "eventlet" => &["spawn", "fork"],
        _ => &["spawn", "forkserver", "fork"],
    };
    for method in methods {
        let answer = server.get(&format!("/{method}"));
        assert_eq!(answer.text(), format!("answer to {method}, 0\n"));
    }
    assert_eq!(server.until_ready_workers(1)[0], worker);
    server.stop();
}

/// Also if they are not made to close what they inherit.
fn children_of_the_application_inherit_nothing(cell: &Cell) {
    // What this process passes on, and `ls` itself needs.
    let listed = Command::new("ls").arg("/proc/self/fd").output().unwrap();
    let inherited: BTreeSet<String> =
        String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect();
    for flags in ["", "--preload --access-logfile access"] {
        let server = Setup::new(cell).app("interpreter").flags(flags).start();
        let found: BTreeSet<String> =
            server.get("/descriptors").text().lines().map(str::to_owned).collect();
        let more: Vec<&String> = found.difference(&inherited).collect();
        assert!(more.is_empty(), "{flags}: {more:?}");
        server.stop();
    }
}

fn options_and_variables_reach_the_interpreter(cell: &Cell) {
    let setup = Setup::new(cell).app("interpreter").env("PYTHONWARNINGS", "ignore::UserWarning");
    let setup = setup.env("PYTHONUTF8", "1").env("OF_TEST", "inherited");
    let setup = setup.flag("--python-option", "-X dev -W ignore::FutureWarning");
    let server = setup.flag("--python-option", "-O").start();
    let facts = facts(&server);
    assert_eq!(facts["dev"], true);
    assert_eq!((&facts["utf8"], &facts["optimize"]), (&1.into(), &1.into()));
    let warnings = facts["warnings"].to_string();
    for category in ["UserWarning", "FutureWarning"] {
        assert!(warnings.contains(category), "{warnings}");
    }
    assert_eq!(facts["environment"], "inherited");
    server.stop();
    let words = "expected an option of Python, such as -X dev";
    for option in ["-c pass", "-m x", "script.py", "-", "-X", "-i"] {
        let ended = Setup::new(cell).flag("--python-option", option).refused();
        assert_eq!(ended.status(), 78, "{option}");
        assert!(ended.log.contains(words), "{option}: {}", ended.log);
    }
}

/// Those that coverage tools, profilers and debuggers register.
fn functions_for_all_threads_see_requests(cell: &Cell) {
    let module = "import sys, threading\n\ntraced, profiled = set(), set()\n\n\n\
                  def trace(frame, event, argument):\n    traced.add(frame.f_code.co_name)\n\n\n\
                  def profile(frame, event, argument):\n    profiled.add(frame.f_code.co_name)\n\n\n\
                  def handled():\n    return 'handled' in traced, 'handled' in profiled\n\n\n\
                  def application(environ, start_response):\n    start_response('200 OK', [])\n    \
                  return [str(handled()).encode()]\n\n\n\
                  for module in sys, threading:\n    module.settrace(trace)\n    module.setprofile(profile)\n";
    let server = Setup::new(cell).file("traced.py", module).app("traced").start();
    for _ in 0..2 {
        assert_eq!(server.get("/").text(), "(True, True)");
    }
    server.stop();
}

/// As one of a debugger does.
fn a_thread_may_outlive_all_others(cell: &Cell) {
    let module = "import threading, time\n\n\n\
                  def outlive():\n    own = threading.current_thread()\n    \
                  while any(each.is_alive() and not each.daemon for each in threading.enumerate() if each is not own):\n        \
                  time.sleep(0.02)\n\n\nthreading.Thread(target=outlive).start()\n";
    let setup = Setup::new(cell).file("outlived.py", module.to_owned() + &saying("served"));
    let server = setup.app("outlived").flags("--graceful-timeout 5").start();
    assert_eq!(server.get("/").text(), "served");
    let ended = server.stop();
    assert!(!ended.log.contains("graceful_timeout"), "{}", ended.log);
}

/// Those that pyenv has installed, and the system's, which is linked statically on Debian.
fn every_interpreter_serves(cell: &Cell) {
    let mut used = 0;
    for (python, version) in installed() {
        let setup = Setup::new(cell).python(&python).app("interpreter");
        if version >= (3, 9) {
            let server = setup.start();
            let facts = facts(&server);
            assert_eq!(facts["version"], format!("{}.{}", version.0, version.1));
            if !links_library(&python) {
                assert_eq!(facts["libraries"], serde_json::json!([]), "{}", python.display());
            }
            server.stop();
            used += 1;
        } else {
            let ended = setup.refused();
            let words = format!("Python {}.{}: 3.9 or later is required", version.0, version.1);
            assert!(ended.log.contains(&words), "{}", ended.log);
        }
    }
    assert!(used > 0);
}

/// Returns the interpreters of this machine with their versions.
pub(crate) fn installed() -> Vec<(PathBuf, (u32, u32))> {
    let mut pythons = vec![PathBuf::from("/usr/bin/python3")];
    let home = std::env::var("HOME").unwrap_or_default();
    let versions = Path::new(&home).join(".pyenv/versions").read_dir().into_iter().flatten();
    pythons.extend(versions.flatten().map(|version| version.path().join("bin/python")));
    pythons.retain(|python| python.exists());
    let with_version = |python: PathBuf| {
        let version = version_of(&python);
        (python, version)
    };
    pythons.into_iter().map(with_version).collect()
}

/// In a virtual environment, with links or with copies, of a directory with a space and a letter that is not ASCII.
fn an_interpreter_may_be_anywhere(cell: &Cell) {
    let base = Path::new("/usr/bin/python3");
    for (name, option) in [("a b/é", "--symlinks"), ("copies", "--copies")] {
        let setup = Setup::new(cell).app("interpreter");
        let environment = setup.dir().join(name);
        let mut command = Command::new(base);
        command.args(["-m", "venv", "--without-pip", option]).arg(&environment);
        assert!(command.status().unwrap().success());
        // As the directory and as the program.
        let python = environment.join("bin/python");
        for named in [&environment, &python] {
            let setup = Setup::new(cell).app("interpreter").python(named);
            let server = setup.start();
            let facts = facts(&server);
            assert_eq!(facts["executable"], *python.to_string_lossy());
            assert_eq!(facts["prefix"], *environment.to_string_lossy());
            server.stop();
        }
        // The packages of a zipped application.
        let archive = environment.join("app.zip");
        let zip = "import sys, zipfile; zipfile.ZipFile(sys.argv[1], 'w').writestr('zipped.py', sys.argv[2])";
        let module = "from interpreter import application\n";
        let zipped = Command::new(&python).args(["-c", zip]).arg(&archive).arg(module).status();
        assert!(zipped.unwrap().success());
        let server =
            Setup::new(cell).app("zipped").python(&python).env("PYTHONPATH", &archive).start();
        assert_eq!(server.get("/").status, 200);
        server.stop();
    }
}

fn an_interpreter_may_print(cell: &Cell) {
    let setup = Setup::new(cell).app("interpreter").python("/usr/bin/python3");
    let talk = "import atexit, sys\nprint('at start')\nsys.stderr.write('and here\\n')\n\
                atexit.register(print, 'at exit')\n";
    let directory = setup.dir().to_owned();
    let server = setup
        .file("sitecustomize.py", talk)
        .env("PYTHONPATH", directory)
        .flags("--preload")
        .start();
    assert_eq!(server.get("/").status, 200);
    server.log.line(&["and here"], SOON);
    server.stop();
}

fn what_is_no_interpreter_is_refused(cell: &Cell) {
    let scripts = [
        ("exits", "#!/bin/sh\nexit 3\n", &["starting the interpreter failed", "status 3"][..]),
        ("succeeds", "#!/bin/sh\necho hello\n", &["starting the interpreter failed", "status 0"]),
        ("crashes", "#!/bin/sh\nkill -SEGV $$\n", &["starting the interpreter failed", "SIGSEGV"]),
        ("garbage", "\x7fELF garbage", &["cannot run the Python interpreter"]),
        ("hangs", "#!/bin/sh\nexec sleep 1000\n", &["starting the interpreter", "boot_timeout"]),
    ];
    for (name, text, words) in scripts {
        let setup = Setup::new(cell).app("interpreter").file(name, text).flags("--boot-timeout 2");
        let path = setup.dir().join(name);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        is_refused(setup.python(&path), &path, words);
    }
    let setup = Setup::new(cell).app("interpreter").file("not-executable", "");
    let path = setup.dir().join("not-executable");
    is_refused(
        setup.python(&path),
        &path,
        &["cannot run the Python interpreter", "Permission denied"],
    );
    for (claim, words) in [
        ("sys.implementation.name = 'pypy'", "is pypy: CPython is required"),
        ("sys.abiflags = 't'", "a free-threaded build, which is not supported"),
        // Built without exporting its symbols.
        (
            "def fails(spec): raise ImportError('undefined symbol')\nsys.modules['_imp'].create_dynamic = fails",
            "cannot load extension modules: undefined symbol",
        ),
    ] {
        let setup = Setup::new(cell).app("interpreter").python("/usr/bin/python3");
        let directory = setup.dir().to_owned();
        let setup = setup.file("sitecustomize.py", format!("import sys\n{claim}\n"));
        let setup = setup.env("PYTHONPATH", directory);
        is_refused(setup, Path::new("/usr/bin/python3"), &[words]);
    }
}

fn is_refused(setup: Setup, python: &Path, words: &[&str]) {
    let ended = setup.refused();
    let errors = ended.log.lines().filter(|line| line.contains("[ERROR]")).collect::<Vec<_>>();
    assert!(ended.status() != 0, "{}", ended.log);
    let [error] = errors[..] else { panic!("one line for {}: {}", python.display(), ended.log) };
    assert!(error.contains(&*python.to_string_lossy()), "{error}");
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {error}");
    }
}

/// One that cannot be used leaves the service as it is.
fn another_interpreter_takes_effect_at_reload(cell: &Cell) {
    let python = cell::python().expect("the behavior's condition");
    let script = |start: &str| format!("#!/bin/sh\n{start} exec {} \"$@\"\n", python.display());
    let setup = Setup::new(cell).app("interpreter").file("python", script(""));
    let path = setup.dir().join("python");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let server = setup.python(&path).start();
    let before = server.until_ready_workers(1)[0];
    server.write("python", "#!/bin/sh\nexit 3\n");
    let failed = server.ctl(&["reload"]).refused();
    assert!(failed.contains("starting the interpreter failed"), "{failed}");
    assert_eq!(server.until_ready_workers(1)[0], before);
    server.write("python", script("PYTHONOPTIMIZE=1"));
    server.ctl(&["reload"]).done();
    assert_eq!(facts(&server)["optimize"], 1);
    server.stop();
}

/// Of a release that was copied badly: the running processes have their private copy of the library.
fn a_broken_runtime_leaves_the_service(cell: &Cell) {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    executable::copy(artifacts::executable("host"), place("host"));
    let wsgi = "libwsgi_app.so";
    fs::copy(artifacts::directory().join(wsgi), place(wsgi)).unwrap();
    let whole = fs::read(artifacts::directory().join(RUNTIME)).unwrap();
    fs::write(place(RUNTIME), &whole).unwrap();
    let setup = Setup::of(&place("host")).class(&cell.class.path).app("interpreter");
    let setup = setup.python(cell::python().expect("the behavior's condition"));
    let server = setup.flag("--pythonpath", cell::apps()).start();
    let before = server.until_ready_workers(1)[0];
    let refused = |what: &str, words: &str| {
        let reason = server.ctl(&["reload"]).refused();
        assert!(reason.contains(words), "{what}: {reason}");
        assert_eq!(server.until_ready_workers(1)[0], before, "{what}");
        assert_eq!(server.get("/").status, 200, "{what}");
    };
    // In place, as a copy by hand does it.
    for (what, bytes, words) in [
        ("empty", Vec::new(), "is not an ELF file"),
        ("garbage", b"no library".repeat(1000), "is not an ELF file"),
        ("truncated", whole[..whole.len() / 20].to_vec(), "is cut short"),
        ("of another build", of_another_build(&whole), "of another build"),
    ] {
        fs::write(place(RUNTIME), bytes).unwrap();
        refused(what, words);
    }
    fs::remove_file(place(RUNTIME)).unwrap();
    refused("absent", RUNTIME);
    fs::create_dir(place(RUNTIME)).unwrap();
    refused("a directory", RUNTIME);
    fs::remove_dir(place(RUNTIME)).unwrap();
    fs::write(place(RUNTIME), &whole).unwrap();
    server.ctl(&["reload"]).done();
    assert_ne!(server.until_ready_workers(1)[0], before);
    server.stop();
}

/// As it is installed, under the name `host`. A reload runs the arbiter's file, also after another build has replaced it.
fn the_runtime_is_an_executable(cell: &Cell) {
    let directory = tempfile::tempdir().unwrap();
    let (bin, lib) = (directory.path().join("bin"), directory.path().join("lib/host"));
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(&lib).unwrap();
    let host = bin.join("host");
    executable::copy(artifacts::library("jimu_runtime"), &host);
    fs::copy(artifacts::library("wsgi_app"), lib.join("libwsgi_app.so")).unwrap();
    let setup = Setup::of(&host).class(&cell.class.path).app("interpreter");
    let setup = setup.python(cell::python().expect("the behavior's condition"));
    let server = setup.flag("--pythonpath", cell::apps()).start();
    assert_eq!(facts(&server)["argv"][0], *host.to_string_lossy());
    let before = server.until_ready_workers(1)[0];
    let maps = fs::read_to_string(format!("/proc/{before}/maps")).unwrap();
    assert!(maps.contains(&*host.to_string_lossy()), "{maps}");
    let replacement = bin.join("replacement");
    fs::write(&replacement, of_another_build(&fs::read(&host).unwrap())).unwrap();
    fs::rename(&replacement, &host).unwrap();
    server.ctl(&["reload"]).done();
    assert_ne!(server.until_ready_workers(1)[0], before);
    server.stop();
}

/// Changes the name by which the runtime knows the server of its build.
fn of_another_build(runtime: &[u8]) -> Vec<u8> {
    let name = concat!("host-", env!("CARGO_PKG_VERSION"), "+").as_bytes();
    let mut changed = runtime.to_vec();
    let places = runtime.windows(name.len()).enumerate().filter(|(_, bytes)| *bytes == name);
    let ends: Vec<usize> = places.map(|(at, _)| at + name.len()).collect();
    assert!(!ends.is_empty(), "no build in the runtime");
    for end in ends {
        changed[end] = if changed[end] == b'0' { b'1' } else { b'0' };
    }
    changed
}

fn the_settings_can_be_checked(cell: &Cell) {
    let ended = Setup::new(cell).app("interpreter").flags("--check-config").refused();
    assert_eq!(ended.status(), 0, "{}", ended.log);
    let ended = Setup::new(cell).app("nosuch").flags("--check-config").refused();
    assert!(ended.status() != 0 && ended.log.contains("nosuch"), "{}", ended.log);
}

fn facts(server: &Server) -> Value {
    serde_json::from_slice(&server.get("/").body).unwrap()
}

fn prefix_of(python: &Path) -> &Path {
    python.parent().and_then(Path::parent).unwrap()
}

fn version_of(python: &Path) -> (u32, u32) {
    let print = "import sys; print('%d %d' % sys.version_info[:2])";
    let output = Command::new(python).args(["-c", print]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (major, minor) = text.trim().split_once(' ').unwrap();
    (major.parse().unwrap(), minor.parse().unwrap())
}

fn links_library(python: &Path) -> bool {
    let output = Command::new("ldd").arg(python).output().unwrap();
    String::from_utf8_lossy(&output.stdout).contains("libpython")
}

/// The server as a library of the interpreter.
const RUNTIME: &str = "libjimu_runtime.so";

//! Error messages for interpreters that cannot be embedded, and for applications that cannot be loaded.

mod double;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use double::Host;
use libtest_mimic::{Arguments, Failed, Trial};
use worker_api::raw::Value;
use worker_api::{Failure, FailureKind};

fn main() {
    if let Ok(spec) = std::env::var(CHOSEN) {
        // A separate process for each, because a process has one interpreter.
        println!(
            "{}",
            loading(&spec).map_or_else(|failure| logged(&failure), |()| "loaded".to_owned())
        );
        return;
    }
    let arguments = Arguments::from_args();
    let interpreters = INTERPRETERS.iter().map(|(name, answer, words)| {
        Trial::test(format!("an interpreter that is {name}"), move || interpreter(answer, words))
    });
    let specs = SPECS.iter().map(|(spec, words)| {
        Trial::test(format!("the application {spec}: {words}"), move || application(spec, words))
    });
    let mut trials: Vec<Trial> = interpreters.chain(specs).collect();
    trials.push(Trial::test("an interpreter that is not there", || {
        let failure = made_with("/nonexistent/python").expect_err("it cannot be run");
        has(
            &logged(&failure),
            "cannot run the Python interpreter /nonexistent/python (setting `python`)",
        )
    }));
    libtest_mimic::run(&arguments, trials).exit();
}

/// The output of an interpreter, and the expected error.
const INTERPRETERS: &[(&str, &str, &str)] = &[
    (
        "too old",
        r#"{"version": [3, 8], "implementation": "cpython", "free_threaded": false, "library": "/l.so"}"#,
        "/x/python is Python 3.8: 3.9 or later is required",
    ),
    (
        "free-threaded",
        r#"{"version": [3, 13], "implementation": "cpython", "free_threaded": true, "library": "/l.so"}"#,
        "/x/python is a free-threaded build of Python 3.13",
    ),
    (
        "static",
        r#"{"version": [3, 12], "implementation": "cpython", "free_threaded": false, "library": null}"#,
        "/x/python has no libpython3.so: it is linked statically",
    ),
    (
        "another",
        r#"{"version": [3, 10], "implementation": "pypy", "free_threaded": false, "library": "/l.so"}"#,
        "/x/python is pypy: only CPython can be embedded",
    ),
    ("no Python", "hello", "is not a Python interpreter"),
    (
        "without its library",
        r#"{"version": [3, 12], "implementation": "cpython", "free_threaded": false, "library": "/nonexistent/l.so"}"#,
        "cannot load /nonexistent/l.so of /x/python",
    ),
];

fn interpreter(answer: &str, words: &str) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("python");
    let rest = r#", "executable": "/x/python", "prefix": "/x", "library_name": "libpython3.so", "utf8": false}"#;
    let answer =
        answer.strip_suffix('}').map_or(answer.to_owned(), |start| format!("{start}{rest}"));
    fs::write(&path, format!("#!/bin/sh\necho '{answer}'\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    let failure = made_with(&path.to_string_lossy()).expect_err("it cannot be embedded");
    if failure.kind != FailureKind::LOAD || failure.message.contains('\n') {
        return Err(Failed::from(format!("{failure:?}")));
    }
    has(&logged(&failure), words)
}

fn made_with(python: &str) -> Result<(), Failure> {
    Host::default().text("python", python).app("apps:application", "sync", "").map(drop)
}

/// The argument that names an application, and the expected error.
const SPECS: &[(&str, &str)] = &[
    ("apps", "loaded"),
    ("apps:hello", "loaded"),
    ("apps:Holder.application", "loaded"),
    ("apps:factory('a', suffix='b')", "loaded"),
    ("no_such_module", "cannot load no_such_module: No module named 'no_such_module'"),
    ("apps.py", "did you mean 'apps:application'?"),
    ("apps:nothing_of_this_name", "Failed to find attribute 'nothing_of_this_name' in 'apps'"),
    ("apps:Holder.nothing", "Failed to find attribute 'nothing' in 'apps.Holder'"),
    ("apps:Holder.number", "Application object must be callable"),
    ("apps:factory()", "missing 1 required positional argument: 'word'"),
    ("apps:factory(kept)", "Failed to parse arguments as literal values"),
    ("apps:1 +", "Failed to parse '1 +' as an attribute name or function call"),
    ("apps:[1]", "Failed to parse '[1]' as an attribute name or function call"),
    ("asgi_apps:function", "asgi_apps:function is an ASGI application"),
    ("asgi_apps:instance", "asgi_apps:instance is an ASGI application"),
    ("asgi_apps:method", "asgi_apps:method is an ASGI application"),
    ("asgi_apps:partial", "asgi_apps:partial is an ASGI application"),
    ("asgi_apps:Instance", "asgi_apps:Instance is an ASGI application"),
    (".apps", "'.apps' is not a module name"),
    ("broken_value", "ValueError: invalid literal for int()"),
    ("broken_value", "broken_value.py\", line 3"),
    ("asgi_apps:raising.application", "AttributeError: inside a property"),
    ("broken_import", "import no_such_module_of_ours"),
    ("broken_syntax", "SyntaxError"),
    ("", "the working directory has no manage.py"),
];

fn application(spec: &str, words: &str) -> Result<(), Failed> {
    let output = Command::new(std::env::current_exe()?).env(CHOSEN, spec).output()?;
    let out = String::from_utf8_lossy(&output.stdout);
    has(&out, words)?;
    let is_ours = !spec.starts_with("broken") && !spec.contains("raising");
    if is_ours && out.contains("Traceback") {
        return Err(Failed::from(format!("an unexpected traceback: {out}")));
    }
    Ok(())
}

fn loading(spec: &str) -> Result<(), Failure> {
    let apps = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps");
    let directories = Value::List(vec![apps.to_string_lossy().into_owned().into()].into());
    let chdir = apps.to_string_lossy().into_owned();
    std::env::set_current_dir(&apps).expect("the directory is there");
    let host = Host::default().set("pythonpath", directories).text("chdir", &chdir);
    let app = host.app(spec, "sync", "")?;
    app.load()
}

/// Returns the failure as the log shows it: the message, then the details.
fn logged(failure: &Failure) -> String {
    let details: Vec<&str> = failure.chain.iter().map(|cause| &**cause).collect();
    format!("{}\n{}", failure.message, details.join("\n"))
}

fn has(text: &str, words: &str) -> Result<(), Failed> {
    if text.contains(words) {
        Ok(())
    } else {
        Err(Failed::from(format!("{words:?} is not in {text}")))
    }
}

/// Environment variable that names the application in the process that loads it.
const CHOSEN: &str = "WSGI_TEST_SPEC";

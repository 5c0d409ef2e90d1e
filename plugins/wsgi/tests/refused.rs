//! Error messages for applications that cannot be loaded.

mod interpreter;

use std::path::Path;
use std::process::Command;

use doubles::app_of;
use interpreter::{become_python, has_library};
use libtest_mimic::{Arguments, Failed, Trial};
use worker_api::Failure;
use worker_api::testing::TestHost;

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
    let possible = has_library(Path::new(PYTHON));
    let specs = SPECS.iter().map(|(spec, words)| {
        let name = format!("the application {spec}: {words}");
        let test = Trial::test(name, move || application(spec, words));
        test.with_ignored_flag(!possible)
    });
    let mut trials: Vec<Trial> = specs.collect();
    trials.push(Trial::test("a process that is no interpreter", no_interpreter));
    libtest_mimic::run(&arguments, trials).exit();
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

fn no_interpreter() -> Result<(), Failed> {
    let made =
        app_of(&TestHost::default(), wsgi_app::root_module(), "apps:application", "sync", "");
    let failure = made.map(drop).expect_err("there is no CPython in this process");
    has(&logged(&failure), "this process is not a Python interpreter")
}

fn loading(spec: &str) -> Result<(), Failure> {
    become_python(Path::new(PYTHON));
    let apps = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps");
    let directory = &*apps.to_string_lossy();
    std::env::set_current_dir(&apps).expect("the directory is there");
    let host = TestHost::default().set("pythonpath", [directory]).set("chdir", directory);
    let app = app_of(&host, wsgi_app::root_module(), spec, "sync", "")?;
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
/// The interpreter that loads them, if it has a shared library.
const PYTHON: &str = "/usr/bin/python3";

//! Opens libraries: compatible ones, and one of each kind that must be refused with a line that gives the reason.
//! Effects of a library on the process while it is opened are tested from outside, with the whole server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use host::plugin::LoadError;
use host::plugin::load::{open_app, open_class};

use crate::built;
use support::compiler::compile;

/// Returns the line with which an application is refused.
fn refusal(path: &Path) -> String {
    let error = open_app(path).err().expect("it must be refused");
    let words = error.to_string();
    assert_eq!(error.exit_status(), 78, "{words}");
    assert_eq!(words.lines().count(), 1, "{words}");
    let path = path.display().to_string();
    words.strip_prefix(&path).and_then(|rest| rest.strip_prefix(": ")).expect(&words).to_owned()
}

fn compiled(directory: &Path, source: &str) -> PathBuf {
    let library = directory.join("liba.so");
    compile(source, &library, &[]);
    library
}

/// Copies the library `hello` and replaces all occurrences of some bytes.
fn edited(directory: &Path, from: &str, to: &str) -> PathBuf {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(built("hello_app")).unwrap();
    let places = places(&bytes, from.as_bytes());
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    let path = directory.join("libedited_app.so");
    fs::write(&path, bytes).unwrap();
    path
}

fn places(bytes: &[u8], words: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(words.len()).enumerate();
    windows.filter(|(_, window)| *window == words).map(|(at, _)| at).collect()
}

#[test]
fn compatible_libraries_are_opened_and_described() {
    let app = open_app(&built("hello_app")).unwrap();
    assert_eq!(app.root.name(), "hello");
    assert_eq!(app.api_version, worker_api::API_VERSION);
    let class = open_class(&built("faulty_worker")).unwrap();
    assert_eq!(class.root.name(), "faulty");
}

#[test]
fn two_libraries_of_one_kind_stay_separate() {
    let hello = open_app(&built("hello_app")).unwrap();
    let faulty = open_app(&built("faulty_app")).unwrap();
    assert_eq!((hello.root.name(), faulty.root.name()), ("hello", "faulty"));
}

#[test]
fn an_open_library_is_independent_of_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("libcopied_app.so");
    fs::copy(built("hello_app"), &path).unwrap();
    let app = open_app(&path).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert_eq!(app.root.name(), "hello");
    assert_eq!(app.root.version(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn files_that_are_not_libraries_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("libnone_app.so");
    assert_eq!(refusal(&path), "no such file; check the path of the application");
    assert!(
        refusal(directory.path()).starts_with("is a directory; pass the application's library")
    );
    assert!(refusal(Path::new("/dev/zero")).starts_with("not an ELF file"));
    fs::write(&path, "#!/bin/sh\n").unwrap();
    assert!(refusal(&path).starts_with("not an ELF file"));
    let mut bytes = fs::read(built("hello_app")).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(refusal(&path).contains("truncated"));
    bytes[18] = 22;
    fs::write(&path, &bytes).unwrap();
    assert!(refusal(&path).starts_with("built for 64-bit S/390, this machine is 64-bit "));
}

#[test]
fn a_library_without_a_root_module_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let words = refusal(&compiled(directory.path(), "int nothing;"));
    assert!(
        words.contains("not an application: it exports neither a root module nor jimu_module"),
        "{words}"
    );
    assert!(words.contains("export_app!"), "{words}");
}

#[test]
fn a_library_of_another_kind_is_refused() {
    let words = refusal(&built("faulty_worker"));
    assert!(words.starts_with("is a worker class, expected an application"), "{words}");
    let error = open_class(&built("hello_app")).err().unwrap();
    assert!(matches!(error, LoadError::OtherKind { .. }), "{error}");
}

#[test]
fn an_unresolved_symbol_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let source = "void nowhere_to_be_found(void); void f(void) { nowhere_to_be_found(); }";
    let words = refusal(&compiled(directory.path(), source));
    assert!(words.contains("undefined symbol: nowhere_to_be_found"), "{words}");
    assert!(!words.contains("/proc/self/fd"), "{words}");
}

#[test]
fn another_version_of_the_interface_is_refused_with_both_versions() {
    let directory = tempfile::tempdir().unwrap();
    let own = worker_api::API_VERSION;
    let words = refusal(&edited(directory.path(), own, &own.replacen('1', "2", 1)));
    assert!(words.starts_with("was built against worker-api 2."), "{words}");
    assert!(words.contains(&format!(", this host has {own}")), "{words}");
}

#[test]
fn another_layout_of_the_interface_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let words = refusal(&edited(directory.path(), "content_length", "content_lenght"));
    assert!(words.starts_with("was built against worker-api 1."), "{words}");
    assert!(words.len() < 400, "{words}");
}

#[test]
fn another_abi_stable_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let symbol = "_1as_0lib_1header_0root_bmodule_bloader";
    let words =
        refusal(&compiled(directory.path(), &format!("const char {symbol}[4096] = \"old\";")));
    assert!(words.contains("another version of abi_stable"), "{words}");
}

#[test]
fn a_panic_in_the_root_module_is_a_refusal() {
    let test = ["--exact", "load::inner_panic_of_a_root_module", "--ignored"];
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(test).env("FAULTY_APP", "root=panic").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
#[ignore = "run by the test above in a process with another environment"]
fn inner_panic_of_a_root_module() {
    let words = refusal(&built("faulty_app"));
    assert_eq!(words, "creating its root module failed: it panicked; this is a bug in the library");
}

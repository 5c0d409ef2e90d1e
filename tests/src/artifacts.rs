//! The executables and shared libraries under test: their location, and how they are built.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The directory of the fixtures in the program's prefix.
const FIXTURES: &str = "lib/jimu-matrix";
/// Set by `cargo xtask test`, which has already built everything.
const BUILT: &str = "JIMU_BUILT";

/// Builds what the tests start, in the profile of the tests, unless that has just been done.
pub fn build() {
    if env::var_os(BUILT).is_some() {
        return;
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--workspace", "--quiet"]).current_dir(root());
    if directory().file_name().is_some_and(|name| name == "release") {
        command.arg("--release");
    }
    let status = command.status().expect("cargo can be started");
    assert!(status.success(), "cargo build failed: {status}");
}

/// Returns whether this is the program `jimu-matrix` and not a test of cargo: its fixtures are in `../lib/jimu-matrix`, and
/// the executables under test elsewhere (`cargo xtask matrix`).
pub fn is_program() -> bool {
    directory().ends_with(FIXTURES)
}

/// Returns the top directory of the source tree; in the program, that of the files that its tests read.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        if is_program() {
            return directory().join("source");
        }
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        tests.parent().expect("tests/ is in the source tree").to_owned()
    })
}

/// Returns the directory of cargo's executables and libraries; in the program, that of its fixtures.
pub fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let test = env::current_exe().expect("a process knows its executable");
        let deps = test.parent().expect("a file is in a directory");
        let above = deps.parent().expect("tests are built into target/PROFILE/deps");
        let fixtures = above.join(FIXTURES);
        if fixtures.is_dir() { fixtures } else { above.to_owned() }
    })
}

/// Returns a directory for what tests compile.
pub fn compiled() -> &'static Path {
    COMPILED.get_or_init(|| {
        let place = if is_program() {
            // The program may be installed where it cannot write.
            let place = tempfile::Builder::new().prefix("jimu-matrix-").tempdir();
            place.expect("the directory for temporary files can be written").keep()
        } else {
            directory().join("c")
        };
        fs::create_dir_all(&place).expect("cargo's directory can be written");
        place
    })
}

/// Removes what the tests of the program have compiled.
pub(crate) fn clean_up() {
    if let Some(place) = COMPILED.get().filter(|_| is_program()) {
        let _ = fs::remove_dir_all(place);
    }
}

static COMPILED: OnceLock<PathBuf> = OnceLock::new();

/// Returns an executable of the workspace. The program finds it beside the server's executable: that of the variable
/// `HOST`, otherwise that beside the program.
pub fn executable(name: &str) -> PathBuf {
    if !is_program() {
        return present(directory().join(name));
    }
    let beside = || env::current_exe().expect("a process knows its executable");
    let named = env::var_os("HOST").map(PathBuf::from);
    let host = named.unwrap_or_else(|| beside().with_file_name("host"));
    let host = host.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", host.display()));
    if name == "host" { host } else { present(host.with_file_name(name)) }
}

/// Returns the shared library of a worker class by its short name.
pub fn class(name: &str) -> PathBuf {
    directory().join(format!("lib{name}_worker.so"))
}

/// Returns the native application of the matrix: that of `NATIVE_APP`, which has the same routes, otherwise the example
/// in Rust.
pub fn native_app() -> PathBuf {
    match env::var_os("NATIVE_APP").map(PathBuf::from) {
        // A relative path is relative to the top of the tree.
        Some(path) => present(root().join(path)),
        None => library("hello_app"),
    }
}

/// Returns the example application in C, compiled once.
pub fn c_application() -> PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let compiled = || compile_c("plugins/examples/hello-c/hello.c", "libhello_c_app.so", &[]);
    LIBRARY.get_or_init(compiled).clone()
}

/// Returns the example application in C++, compiled once.
pub fn cpp_application() -> PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let source = "plugins/examples/hello-cpp/hello.cpp";
    let compiled = || compile("c++", "c++17", source, "libhello_cpp_app.so", &[]);
    LIBRARY.get_or_init(compiled).clone()
}

/// Returns the example class in C, compiled once and linked to the kit.
pub fn c_class() -> PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let compiled = || {
        let kit = present(directory().join("libjimu_kit.a"));
        let kit = [kit.to_str().expect("a path of cargo"), "-Wl,--gc-sections,--exclude-libs,ALL"];
        let source = "plugins/examples/threaded-worker-c/threaded.c";
        compile_c(source, "libthreaded_c_worker.so", &[&kit[..], &["-lm", "-pthread"]].concat())
    };
    LIBRARY.get_or_init(compiled).clone()
}

fn compile_c(source: &str, name: &str, arguments: &[&str]) -> PathBuf {
    compile("cc", "c11", source, name, arguments)
}

/// Compiles an example without a warning.
fn compile(
    compiler: &str,
    standard: &str,
    source: &str,
    name: &str,
    arguments: &[&str],
) -> PathBuf {
    let place = compiled();
    // Another process of the tests may be doing the same.
    let (library, new) = (place.join(name), place.join(format!("{name}.{}", std::process::id())));
    let include = |of: &str| format!("-I{}", root().join(of).join("include").display());
    let mut compiler = Command::new(compiler);
    compiler.arg(format!("-std={standard}"));
    compiler.args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", "-fPIC", "-shared"]);
    compiler.args([include("worker-api"), include("workers/kit-c")]).arg(root().join(source));
    let status = compiler.arg("-o").arg(&new).args(arguments).status();
    assert!(status.is_ok_and(|status| status.success()), "{compiler:?}");
    fs::rename(&new, &library).expect("both are in one directory");
    library
}

/// Returns another shared library of the workspace: `library("hello_app")`.
pub fn library(name: &str) -> PathBuf {
    present(directory().join(format!("lib{name}.so")))
}

/// Returns the worker classes that this workspace has built, sorted by name.
pub fn classes() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root().join("workers"))
        .expect("workers/ is in the source tree")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| class(name).exists())
        .collect();
    names.sort_unstable();
    names
}

fn present(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing: run `cargo build --workspace`", path.display());
    path
}

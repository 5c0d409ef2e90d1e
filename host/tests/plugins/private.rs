//! Private libraries, which a plugin brings along and finds by `$ORIGIN`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use host::plugin::load::{Plugin, open_app};
use host::plugin::module::AppModule;

use crate::built;
use support::compiler::compile;

/// Compiles an application that brings hello, whose root module it exports with it, and `libgreet.so.1`, a relative
/// link. When it is loaded it writes the greeting to a file.
fn greeter(directory: &Path, greeting: &str) -> PathBuf {
    greeter_with("libgreet", directory, greeting)
}

/// Like [`greeter`], with another name for the library.
fn greeter_with(greet: &str, directory: &Path, greeting: &str) -> PathBuf {
    let lib = directory.join("lib");
    fs::create_dir_all(&lib).unwrap();
    fs::copy(built("hello_app"), lib.join("libbrought_app.so")).unwrap();
    fs::write(directory.join("versions"), "GREET_1 { global: greet; local: *; };").unwrap();
    let versions = format!("-Wl,--version-script,{}", directory.join("versions").display());
    // These two need each other, and find each other by the runpath of the application: they have none.
    let (search, twice) = (format!("-L{}", lib.display()), lib.join("libtwice.so"));
    let source = "const char *greet(void); const char *twice(void) { return greet(); }";
    compile(source, &twice, &[]);
    compile(
        &format!("const char *greet(void) {{ return \"{greeting}\"; }}"),
        &lib.join(format!("{greet}.so.1.0")),
        &[&format!("-Wl,-soname,{greet}.so.1"), &versions, &search, "-ltwice"],
    );
    symlink(format!("{greet}.so.1.0"), lib.join(format!("{greet}.so.1"))).unwrap();
    let needs_greet = format!("-l:{greet}.so.1");
    compile(source, &twice, &[&search, &needs_greet]);
    let app = directory.join("libgreeter_app.so");
    let out = directory.join("greeted").display().to_string();
    compile(
        &format!(
            "#include <stdio.h>\nconst char *twice(void);\n__attribute__((constructor)) static void begin(void) {{ \
             FILE *out = fopen(\"{out}\", \"w\"); fputs(twice(), out); fclose(out); }}"
        ),
        &app,
        &[&search, "-ltwice", &needs_greet, "-lbrought_app", "-Wl,-rpath,$ORIGIN/lib"],
    );
    app
}

fn open(app: &Path) -> Plugin<AppModule> {
    open_app(app).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(app: &Path) -> String {
    let error = open_app(app).err().expect("it must be refused");
    assert_eq!(error.exit_status(), 78, "{error}");
    error.to_string()
}

#[test]
fn each_plugin_has_the_version_that_it_brings() {
    let directory = tempfile::tempdir().unwrap();
    for greeting in ["first", "second"] {
        let directory = directory.path().join(greeting);
        let plugin = open(&greeter(&directory, greeting));
        assert_eq!(plugin.root.name(), "hello");
        assert_eq!(fs::read_to_string(directory.join("greeted")).unwrap(), greeting);
        let brought = ["libtwice.so", "libgreet.so.1", "libbrought_app.so"];
        assert_eq!(plugin.private, brought.map(|name| directory.join("lib").join(name)));
        assert_eq!(plugin.names.len(), 4);
    }
}

#[test]
fn a_plugin_behind_a_link_finds_what_is_beside_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let app = greeter(&directory.path().join("release"), "linked");
    let link = directory.path().join("liblink_app.so");
    symlink(Path::new("release").join(app.file_name().unwrap()), &link).unwrap();
    assert_eq!(open(&link).private.len(), 3);
}

#[test]
fn a_library_that_is_missing_is_named_with_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    // The dynamic linker would take a library of this name that another test has loaded.
    let app = greeter_with("libabsent", directory.path(), "none");
    let lib = directory.path().join("lib");
    fs::remove_file(lib.join("libabsent.so.1")).unwrap();
    let words = refusal(&app);
    assert_eq!(words.lines().count(), 1, "{words}");
    assert!(words.contains(&format!("no readable libabsent.so.1 in {}", lib.display())), "{words}");
    assert!(!words.contains("/proc/"), "{words}");
}

#[test]
fn a_library_that_is_cut_short_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let app = greeter(directory.path(), "half");
    let library = directory.path().join("lib/libgreet.so.1");
    fs::File::options().write(true).open(&library).unwrap().set_len(5000).unwrap();
    let words = refusal(&app);
    let expected = format!("its library {} is cut short", library.display());
    assert!(words.contains(&expected), "{words}");
}

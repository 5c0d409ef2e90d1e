//! Plugins in C, each with one fault: refused with a line that names the file, the table, the field and the versions.
//! Each is a good one in which some words are replaced.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use host::plugin::LoadError;
use host::plugin::load::{open_app, open_class, open_hooks};
use support::compiler::compile;

use crate::built;
use As::{Application, Class, Hooks};

/// The kind that the server expects.
#[derive(Clone, Copy)]
enum As {
    Application,
    Class,
    Hooks,
}

/// A plugin, the words of it that are replaced, the kind that it is opened as, and the line without the file's path.
type Case = (&'static str, &'static str, &'static str, As, &'static str);

#[test]
fn each_fault_is_named() {
    let place = Place::new();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = FAULTS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (good, from, to, expected, line) = *case;
                    let library = place.compile(&edited(good, from, to));
                    assert_eq!(refusal(&library, expected), line, "{from:?} is {to:?}");
                }
            });
        }
    });
    assert!(FAULTS.len() >= 22);
}

#[test]
fn the_good_ones_are_opened() {
    let place = Place::new();
    let app = open_app(&place.compile(APPLICATION)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((app.root.name(), app.root.version()), ("good", "1.5"));
    assert_eq!(app.api_version, "jimu.h 1.0");
    let class = open_class(&place.compile(CLASS)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((class.root.name(), class.root.guest_loop()), ("good", ""));
    let hooks = open_hooks(&place.compile(HOOKS)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(hooks.root.name(), "good");
}

#[test]
fn what_a_later_minor_version_adds_is_no_fault() {
    let place = Place::new();
    let longer = "typedef struct { jimu_application known; uint64_t added[3]; } later;\n\
                  typedef struct { jimu_app_table known; void (*added[2])(void); } later_functions;\n\
                  extern JIMU_VISIBLE const later jimu_module;\n";
    for minor in ["0", "7"] {
        let table = |name: &str| format!("{{ sizeof({name}), 1, {minor} }}");
        let source = edited(APPLICATION, "JIMU_TABLE(jimu_app_table)", &table("later_functions"));
        let source = edited(&source, "JIMU_TABLE(jimu_application)", &table("later"));
        let source = edited(
            &source,
            "const jimu_app_table functions = {",
            "const later_functions functions = { {",
        );
        let source = edited(&source, ".call = call,", ".call = call, }, { (void (*)(void))call },");
        let source =
            edited(&source, "JIMU_EXPORT_APPLICATION = {", "const later jimu_module = { {");
        let source = edited(
            &source,
            ".functions = &functions,",
            ".functions = &functions.known }, { 1, 2, 3 },",
        );
        let source = edited(&source, "/* types */", longer);
        let app = open_app(&place.compile(&source)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(app.root.name(), "good");
        assert_eq!(app.api_version, format!("jimu.h 1.{minor}"));
    }
}

#[test]
fn files_that_are_broken_are_named() {
    let place = Place::new();
    let library = place.compile(APPLICATION);
    let bytes = fs::read(&library).unwrap();
    fs::write(&library, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(refusal(&library, Application), "a truncated ELF file; copy it again");
    let mut other = bytes;
    // e_machine
    other[18..20].copy_from_slice(&[0xf3, 0]);
    fs::write(&library, other).unwrap();
    let line = refusal(&library, Application);
    assert!(line.starts_with("built for 64-bit RISC-V, this machine is 64-bit "), "{line}");
    assert!(line.ends_with("; build it for this machine"), "{line}");
}

#[test]
fn a_symbol_without_a_size_is_trusted() {
    let place = Place::new();
    let source = edited(
        APPLICATION,
        "JIMU_EXPORT_APPLICATION = {",
        "static const jimu_application inner = {",
    );
    let alias = "\n__asm__(\".globl jimu_module\\n.set jimu_module, inner\\n.size jimu_module, 0\");\n\
                 const void *used(void) { return &inner; }\n";
    let app = open_app(&place.compile(&format!("{source}{alias}")));
    assert_eq!(app.unwrap_or_else(|error| panic!("{error}")).root.name(), "good");
}

#[test]
fn what_goes_wrong_in_a_plugin_ends_the_start_with_a_status() {
    let place = Place::new();
    let fail = |kind: &str| format!("return jimu_fail(failure, {kind}, \"no database\\nat all\");");
    let begin = "__attribute__((constructor)) static void begin(void) { _exit(0); }";
    let cases: [(&str, String, i32, &[&str]); 5] = [
        (
            "/* create */",
            fail("JIMU_FAILURE_CONFIG"),
            78,
            &["the application refuses to start: no database"],
        ),
        (
            "/* create */",
            fail("JIMU_FAILURE_LOAD"),
            4,
            &["the application refuses to start: no database"],
        ),
        (
            "/* create */",
            "*(volatile int *)8 = 1;".to_owned(),
            78,
            &["creating the application", "SIGSEGV"],
        ),
        ("/* create */", "abort();".to_owned(), 78, &["creating the application", "SIGABRT"]),
        ("/* types */", begin.to_owned(), 78, &["opening the application", "exited with status 0"]),
    ];
    for (from, to, status, words) in cases {
        let library = place.compile(&edited(APPLICATION, from, &to));
        let output = host(&library);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{to}: {text}");
        let path = library.display().to_string();
        let fits = |line: &&str| {
            line.contains("[ERROR]")
                && line.contains(&path)
                && words.iter().all(|words| line.contains(words))
        };
        assert_eq!(text.lines().filter(fits).count(), 1, "{words:?} in {text}");
    }
}

/// Returns the line with which a library is refused, after the path of its file.
fn refusal(library: &Path, expected: As) -> String {
    let error: Option<LoadError> = match expected {
        Application => open_app(library).err(),
        Class => open_class(library).err(),
        Hooks => open_hooks(library).err(),
    };
    let error = error.unwrap_or_else(|| panic!("{} must be refused", library.display()));
    assert_eq!(error.exit_status(), 78, "{error}");
    let words = error.to_string();
    let path = library.display().to_string();
    let line = words.strip_prefix(&path).and_then(|rest| rest.strip_prefix(": ")).expect(&words);
    line.replace(&path, "FILE")
}

/// Runs the command in a directory without a settings file, until it exits.
fn host(app: &Path) -> Output {
    let directory = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_host"))
        .current_dir(directory.path())
        .args(["--bind=127.0.0.1:0", "--no-control-socket", "--workers=1", "--worker-class"])
        .args([&built("faulty_worker"), app])
        .output()
        .unwrap()
}

/// Replaces words that are there once.
fn edited(source: &str, from: &str, to: &str) -> String {
    assert_eq!(source.matches(from).count(), 1, "{from}");
    source.replace(from, to)
}

/// A directory for libraries.
struct Place {
    directory: tempfile::TempDir,
    count: AtomicUsize,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self { directory, count: AtomicUsize::new(0) }
    }

    fn compile(&self, source: &str) -> PathBuf {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let library = self.directory.path().join(format!("libbroken{number}.so"));
        let include = concat!("-I", env!("CARGO_MANIFEST_DIR"), "/../worker-api/include");
        compile(source, &library, &["-std=c11", "-D_GNU_SOURCE", include]);
        library
    }
}

const APPLICATION: &str = r#"
#include "jimu.h"
#include <stdlib.h>
#include <unistd.h>
/* types */

static jimu_result create(const jimu_host *host, const jimu_app_context *context, void **self, jimu_failure *failure) {
    (void)host, (void)context, (void)self, (void)failure;
    /* create */
    return JIMU_OK;
}

static jimu_result call(void *self, jimu_exchange *exchange, jimu_failure *failure) {
    (void)self;
    return jimu_respond(exchange, 200, "text/plain", "good", 4, failure);
}

static const jimu_app_table functions = {
    .table = JIMU_TABLE(jimu_app_table),
    .call = call,
};

JIMU_EXPORT_APPLICATION = {
    .head = {
        .table = JIMU_TABLE(jimu_application),
        .magic = JIMU_MAGIC,
        .kind = JIMU_KIND_APPLICATION,
        .flags = 0,
        .features = 0,
        .name = "good",
        .version = "1.5",
    },
    .create = create,
    .functions = &functions,
};
"#;

const CLASS: &str = r#"
#include "jimu.h"

static jimu_result create(const jimu_host *host, const jimu_app *app, void **self, jimu_failure *failure) {
    (void)host, (void)app, (void)self, (void)failure;
    return JIMU_OK;
}

static jimu_result run(void *self, jimu_failure *failure) {
    (void)self, (void)failure;
    return JIMU_OK;
}

static const jimu_worker_table functions = {
    .table = JIMU_TABLE(jimu_worker_table),
    .run = run,
};

JIMU_EXPORT_WORKER_CLASS = {
    .head = {
        .table = JIMU_TABLE(jimu_worker_class),
        .magic = JIMU_MAGIC,
        .kind = JIMU_KIND_WORKER_CLASS,
        .flags = 0,
        .features = 0,
        .name = "good",
        .version = "1.5",
    },
    .description = "serves nothing",
    .guest_loop = NULL,
    .create = create,
    .functions = &functions,
};
"#;

const HOOKS: &str = r#"
#include "jimu.h"

static jimu_result create(const jimu_host *host, void **self, jimu_failure *failure) {
    (void)host, (void)self, (void)failure;
    return JIMU_OK;
}

static jimu_result event(void *self, jimu_str name, const int64_t *facts, size_t count, jimu_failure *failure) {
    (void)self, (void)name, (void)facts, (void)count, (void)failure;
    return JIMU_OK;
}

static const jimu_hooks_table functions = {
    .table = JIMU_TABLE(jimu_hooks_table),
    .event = event,
};

JIMU_EXPORT_HOOKS = {
    .head = {
        .table = JIMU_TABLE(jimu_hooks_module),
        .magic = JIMU_MAGIC,
        .kind = JIMU_KIND_HOOKS,
        .name = "good",
        .version = "1.5",
    },
    .create = create,
    .functions = &functions,
};
"#;

const FAULTS: &[Case] = &[
    // The exported symbol.
    (
        APPLICATION,
        "JIMU_EXPORT_APPLICATION = {",
        "const jimu_application other = {",
        Application,
        "is a shared library, but not an application: it exports neither a root module nor jimu_module; build it with \
         worker-api and export_app!, or with jimu.h",
    ),
    (
        APPLICATION,
        "/* types */",
        "JIMU_VISIBLE int jimu_module(void) { return 1; }\n#undef JIMU_EXPORT_APPLICATION\n\
         #define JIMU_EXPORT_APPLICATION const jimu_application other",
        Application,
        "jimu_module is a function, not a table: export a constant with a macro of jimu.h",
    ),
    (
        APPLICATION,
        "/* types */",
        "JIMU_VISIBLE char jimu_module[sizeof(jimu_application)];\n#undef JIMU_EXPORT_APPLICATION\n\
         #define JIMU_EXPORT_APPLICATION const jimu_application other",
        Application,
        "jimu_module has the magic number 0x0 instead of JIMU_MAGIC: export it with a macro of jimu.h",
    ),
    (
        APPLICATION,
        "JIMU_EXPORT_APPLICATION = {",
        "JIMU_VISIBLE jimu_module_head jimu_module = { JIMU_TABLE(jimu_application), JIMU_MAGIC, 1, 0, 0, \"\", \"\" };\n\
         const jimu_application other = {",
        Application,
        "jimu_application has 64 bytes by its own account, but the exported jimu_module has 48: begin it with \
         JIMU_TABLE(jimu_application)",
    ),
    (
        APPLICATION,
        ".magic = JIMU_MAGIC",
        ".magic = 0x696d756a",
        Application,
        "jimu_module has the magic number 0x696d756a instead of JIMU_MAGIC: export it with a macro of jimu.h",
    ),
    // Version and size.
    (
        APPLICATION,
        "JIMU_TABLE(jimu_application)",
        "{ sizeof(jimu_application), 2, 0 }",
        Application,
        "jimu_module is of jimu.h 2.0, this host has 1.0: build it with jimu.h 1.x",
    ),
    (
        APPLICATION,
        "JIMU_TABLE(jimu_application)",
        "{ sizeof(jimu_application), 0, 9 }",
        Application,
        "jimu_module is of jimu.h 0.9, this host has 1.0: build it with jimu.h 1.x",
    ),
    (
        APPLICATION,
        "JIMU_TABLE(jimu_application)",
        "{ sizeof(jimu_application) - 8, 1, 0 }",
        Application,
        "jimu_application has 56 bytes, in jimu.h 1.0 it has 64: begin it with JIMU_TABLE(jimu_application)",
    ),
    (
        APPLICATION,
        "JIMU_TABLE(jimu_application)",
        "{ 0, 1, 0 }",
        Application,
        "jimu_application has 0 bytes, in jimu.h 1.0 it has 64: begin it with JIMU_TABLE(jimu_application)",
    ),
    (
        CLASS,
        "JIMU_TABLE(jimu_worker_class)",
        "{ 0xffffffff, 1, 0 }",
        Class,
        "jimu_worker_class has 4294967295 bytes, in jimu.h 1.0 it has 96: begin it with JIMU_TABLE(jimu_worker_class)",
    ),
    (
        HOOKS,
        "JIMU_TABLE(jimu_hooks_module)",
        "{ sizeof(jimu_module_head), 1, 0 }",
        Hooks,
        "jimu_hooks_module has 48 bytes, in jimu.h 1.0 it has 64: begin it with JIMU_TABLE(jimu_hooks_module)",
    ),
    // Kinds and flags.
    (
        CLASS,
        "1.5",
        "1.6",
        Application,
        "is a worker class, expected an application; pass it with --worker-class",
    ),
    (
        APPLICATION,
        "1.5",
        "1.6",
        Class,
        "is an application, expected a worker class; pass it as the argument APPLICATION",
    ),
    (
        HOOKS,
        "1.5",
        "1.6",
        Application,
        "is a hook plugin, expected an application; pass it with --hooks",
    ),
    (HOOKS, "1.5", "1.6", Class, "is a hook plugin, expected a worker class; pass it with --hooks"),
    (
        APPLICATION,
        "1.5",
        "1.6",
        Hooks,
        "is an application, expected a hook plugin; pass it as the argument APPLICATION",
    ),
    (
        CLASS,
        "1.5",
        "1.6",
        Hooks,
        "is a worker class, expected a hook plugin; pass it with --worker-class",
    ),
    (
        APPLICATION,
        "JIMU_KIND_APPLICATION",
        "77",
        Application,
        "jimu_module is of the kind 77, which jimu.h 1.0 does not have",
    ),
    (
        APPLICATION,
        ".flags = 0",
        ".flags = 6",
        Application,
        "jimu_application: `flags` is 0x6, of which jimu.h 1.0 has 0x1 here",
    ),
    (
        CLASS,
        ".flags = 0",
        ".flags = JIMU_LOAD_IN_WORKER",
        Class,
        "jimu_worker_class: `flags` is 0x1, of which jimu.h 1.0 has 0x0 here",
    ),
    // Texts.
    (
        APPLICATION,
        ".name = \"good\"",
        ".name = NULL",
        Application,
        "jimu_application: `name` is missing (NULL)",
    ),
    (
        APPLICATION,
        ".name = \"good\"",
        ".name = \"g\\xff\"",
        Application,
        "jimu_application: `name` is not UTF-8",
    ),
    (
        APPLICATION,
        ".version = \"1.5\"",
        ".version = NULL",
        Application,
        "jimu_application: `version` is missing (NULL)",
    ),
    (
        CLASS,
        "\"serves nothing\"",
        "NULL",
        Class,
        "jimu_worker_class: `description` is missing (NULL)",
    ),
    (
        CLASS,
        ".guest_loop = NULL",
        ".guest_loop = \"\\xc3\"",
        Class,
        "jimu_worker_class: `guest_loop` is not UTF-8",
    ),
    // Functions.
    (
        APPLICATION,
        ".create = create",
        ".create = NULL",
        Application,
        "jimu_application: `create` is missing (NULL)",
    ),
    (
        CLASS,
        ".create = create",
        ".create = NULL",
        Class,
        "jimu_worker_class: `create` is missing (NULL)",
    ),
    (
        HOOKS,
        ".create = create",
        ".create = NULL",
        Hooks,
        "jimu_hooks_module: `create` is missing (NULL)",
    ),
    (
        APPLICATION,
        ".functions = &functions",
        ".functions = (0 ? &functions : NULL)",
        Application,
        "jimu_application: `functions` is missing (NULL)",
    ),
    (
        APPLICATION,
        "JIMU_TABLE(jimu_app_table)",
        "{ sizeof(jimu_app_table), 2, 1 }",
        Application,
        "jimu_app_table is of jimu.h 2.1, this host has 1.0: build it with jimu.h 1.x",
    ),
    (
        APPLICATION,
        "JIMU_TABLE(jimu_app_table)",
        "{ 16, 1, 0 }",
        Application,
        "jimu_app_table has 16 bytes, in jimu.h 1.0 it has 120: begin it with JIMU_TABLE(jimu_app_table)",
    ),
    (
        CLASS,
        "JIMU_TABLE(jimu_worker_table)",
        "{ 70000, 1, 0 }",
        Class,
        "jimu_worker_table has 70000 bytes, in jimu.h 1.0 it has 64: begin it with JIMU_TABLE(jimu_worker_table)",
    ),
    (
        APPLICATION,
        ".call = call",
        ".call = (0 ? call : NULL)",
        Application,
        "jimu_app_table: `call` is missing (NULL)",
    ),
    (
        CLASS,
        ".run = run",
        ".run = (0 ? run : NULL)",
        Class,
        "jimu_worker_table: `run` is missing (NULL)",
    ),
    (
        HOOKS,
        ".event = event",
        ".event = (0 ? event : NULL)",
        Hooks,
        "jimu_hooks_table: `event` is missing (NULL)",
    ),
    (
        APPLICATION,
        ".features = 0",
        ".features = JIMU_NEEDS_LOOP",
        Application,
        "jimu_app_table: `run_loop` is missing (NULL)",
    ),
    (
        APPLICATION,
        "/* create */",
        "extern void nowhere_to_be_found(void); nowhere_to_be_found();",
        Application,
        "cannot be loaded: FILE: undefined symbol: nowhere_to_be_found; link it with the library that has this symbol",
    ),
];

//! The header against its Rust side: every type has the same size, the same fields in the same order, at the same offsets;
//! and every dialect of C and C++ that the header is for accepts it without a warning.

#![allow(clippy::unwrap_used, clippy::format_collect)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use c_api::tables::{self, LAYOUTS};

/// Compilers with the dialects that they are asked for. The first is the one that links Rust programs.
const COMPILERS: [(&str, &str, &str); 7] = [
    ("cc", "c11", "c"),
    ("cc", "c17", "c"),
    ("c++", "c++17", "cpp"),
    ("clang", "c11", "c"),
    ("clang", "c17", "c"),
    ("clang++", "c++17", "cpp"),
    ("g++", "c++20", "cpp"),
];

#[test]
fn every_type_is_laid_out_as_in_the_header() {
    let output = run("layout", &program());
    let expected: String = LAYOUTS.iter().flat_map(lines).collect();
    for (ours, header) in expected.lines().zip(output.lines()) {
        assert_eq!(ours, header, "the Rust side (left) differs from jimu.h (right)");
    }
    assert_eq!(expected.lines().count(), output.lines().count());
}

#[test]
fn every_dialect_accepts_the_header_without_a_warning() {
    let mut accepted = 0;
    for (compiler, standard, end) in COMPILERS {
        let source = directory("dialects").join(format!("module.{end}"));
        std::fs::write(&source, MODULE).unwrap();
        let mut command = Command::new(compiler);
        command.args([format!("-std={standard}")]).args([
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
        ]);
        command
            .args(["-Wconversion", "-Wshadow", "-fsyntax-only", "-I"])
            .arg(include())
            .arg(&source);
        // A machine without this compiler: the first one is on all that build Rust programs.
        let Ok(output) = command.output() else {
            assert_ne!(compiler, "cc", "there is no C compiler");
            continue;
        };
        if end == "cpp" {
            let source = directory("dialects").join("application.cpp");
            std::fs::write(&source, APPLICATION).unwrap();
            let mut command = Command::new(compiler);
            command.args([format!("-std={standard}")]).args(["-Wall", "-Wextra", "-Wpedantic"]);
            command
                .args(["-Wshadow", "-Werror", "-fsyntax-only", "-I"])
                .arg(include())
                .arg(&source);
            let output = command.output().unwrap();
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{compiler} -std={standard}, jimu.hpp: {words}");
        }
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{compiler} -std={standard}: {words}");
        accepted += 1;
    }
    assert!(accepted >= 2, "{accepted}");
}

#[test]
fn constants_are_those_of_the_header() {
    let pairs = [
        ("JIMU_ABI_MAJOR", i64::from(tables::MAJOR)),
        ("JIMU_ABI_MINOR", i64::from(tables::MINOR)),
        ("JIMU_FAILURE_TEXT", tables::FAILURE_TEXT as i64),
        ("JIMU_OK", i64::from(tables::OK)),
        ("JIMU_READY", i64::from(tables::READY)),
        ("JIMU_PENDING", i64::from(tables::PENDING)),
        ("JIMU_FAILED", i64::from(tables::FAILED)),
        ("JIMU_TLS_REFUSED", i64::from(tables::TLS_REFUSED)),
        ("JIMU_TLS_PLAIN_HTTP", i64::from(tables::TLS_PLAIN_HTTP)),
        ("JIMU_LENGTH_UNKNOWN", tables::LENGTH_UNKNOWN),
        ("JIMU_FOREVER", tables::FOREVER as i64),
        ("JIMU_MAGIC", i64::from(tables::MAGIC)),
        ("JIMU_LOAD_IN_WORKER", tables::LOAD_IN_WORKER as i64),
        ("JIMU_FAILURE_INTERFACE", i64::from(worker_api::FailureKind::INTERFACE.0)),
        ("JIMU_READ_WRITE", i64::from(worker_api::Interest::READ_WRITE.0)),
        ("JIMU_NEEDS_LOOP", worker_api::Requirements::LOOP.0 as i64),
        ("JIMU_IS_COOPERATIVE", worker_api::Capabilities::COOPERATIVE.0 as i64),
        ("JIMU_COUNT_QUEUED_US", i64::from(worker_api::Counter::QUEUED_US.0)),
        ("JIMU_LOG_TRACE", i64::from(worker_api::LogLevel::TRACE.0)),
    ];
    let mut program = start();
    for (name, _) in pairs {
        let _ = writeln!(program, "    printf(\"{name} %lld\\n\", (long long)({name}));");
    }
    program.push_str("    return 0;\n}\n");
    let expected: String = pairs.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
    assert_eq!(run("constants", &program), expected);
}

fn lines(layout: &tables::Layout) -> Vec<String> {
    let head = format!("{} {}\n", layout.name, layout.size);
    let fields = layout.fields.iter().map(|(name, offset, size)| {
        format!("{}.{} {offset} {size}\n", layout.name, in_header(layout.name, name))
    });
    std::iter::once(head).chain(fields).collect()
}

/// A program that prints the same of the header. A field that the header has and Rust lacks shows as a gap or in the size.
fn program() -> String {
    let mut program = start();
    for layout in LAYOUTS {
        let name = layout.name;
        let _ = writeln!(program, "    printf(\"{name} %zu\\n\", sizeof({name}));");
        for (field, _, _) in layout.fields {
            let field = in_header(name, field);
            let _ = writeln!(
                program,
                "    printf(\"{name}.{field} %zu %zu\\n\", offsetof({name}, {field}), sizeof((({name} *)0)->{field}));"
            );
        }
    }
    program.push_str("    return 0;\n}\n");
    program
}

fn start() -> String {
    "#include <stdio.h>\n#include \"jimu.h\"\nint main(void) {\n".to_owned()
}

/// Names that are words of Rust.
fn in_header<'a>(table: &str, field: &'a str) -> &'a str {
    match (table, field) {
        (_, "this") => "self",
        ("jimu_value", "kind") => "type",
        _ => field,
    }
}

fn run(name: &str, program: &str) -> String {
    let directory = directory(name);
    let (source, executable) = (directory.join("main.c"), directory.join("main"));
    std::fs::write(&source, program).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c11", "-Wall", "-Werror", "-I"]).arg(include());
    let status = compiler.arg(&source).arg("-o").arg(&executable).status().unwrap();
    assert!(status.success());
    String::from_utf8(Command::new(executable).output().unwrap().stdout).unwrap()
}

fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("header").join(name);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

fn include() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../include")
}

/// A module that uses every helper, in the words that C and C++ share.
const MODULE: &str = r#"
#include "jimu.h"

static jimu_result create(const jimu_host *host, const jimu_app_context *context, void **self, jimu_failure *failure) {
    (void)failure;
    *self = NULL;
    jimu_log(host, JIMU_LOG_INFO, "test", jimu_is(context->spec, "x") ? "x" : "y");
    return JIMU_OK;
}

static jimu_result call(void *self, jimu_exchange *exchange, jimu_failure *failure) {
    const jimu_head *head = exchange->functions->head(exchange->self);
    jimu_header headers[1];
    char buffer[16];
    size_t done = 0;
    (void)self;
    headers[0] = jimu_header_of("X-Name", "value");
    if (jimu_bytes_are(jimu_head_find(head, "accept"), "x") || jimu_head_query(head, "q").data) {
        return jimu_fail(failure, JIMU_FAILURE_APPLICATION, "no");
    }
    if (jimu_read(exchange, buffer, sizeof buffer, &done, failure) != JIMU_OK ||
        jimu_start(exchange, 200, headers, 1, failure) != JIMU_OK ||
        jimu_write(exchange, buffer, done, failure) != JIMU_OK ||
        jimu_send_file(exchange, 0, 0, 0, failure) != JIMU_OK) {
        return JIMU_FAILED;
    }
    return jimu_respond(exchange, 200, "text/plain", "hi", 2, failure);
}

static const jimu_app_table functions = {
    JIMU_TABLE(jimu_app_table), call, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
};

JIMU_EXPORT_APPLICATION = { JIMU_APPLICATION("test", "1.0", 0, 0), create, &functions };
"#;

/// An application by `jimu.hpp` that uses what the example does not.
const APPLICATION: &str = r#"
#include "jimu.hpp"

struct Later : jimu::Application {
    void call(jimu::Exchange &exchange) override {
        if (exchange.method() == "POST" && exchange.header("X-Name").value_or("") == "x") {
            throw jimu::Error(exchange.read_to_end(100), JIMU_FAILURE_APPLICATION, 400);
        }
        exchange.send_file(0, 0, 0);
        jimu::Exchange owned = exchange.detach();
        owned.finish();
    }
    void load() override {}
    void init_worker(jimu::Runtime runtime) override {
        const jimu::Descriptor socket = runtime.connect(runtime.resolve("localhost", 80).at(0), 1000);
        runtime.wait(socket.get(), JIMU_READ);
    }
};

JIMU_CPP_APPLICATION(Later, "later", "1.0")
"#;

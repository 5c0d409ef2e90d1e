//! The files of each kind of project, in each language that it can be written in.

use super::{Kind, Language};

/// A file of a project. Path and text have placeholders.
pub(super) struct Template {
    pub(super) path: &'static str,
    pub(super) text: &'static str,
}

/// Returns the files of a project, or `None` if this kind of plugin cannot be written in this language: worker classes
/// and hooks run code in the mold, whose forks Go's runtime does not survive.
pub(super) fn files(kind: Kind, language: Language) -> Option<Vec<Template>> {
    let own = match (kind, language) {
        (Kind::App, Language::Rust) => rust(vec![
            template("Cargo.toml", include_str!("templates/shared/manifest.toml")),
            template("src/lib.rs", include_str!("templates/app/rust/app.rs")),
            template("tests/serves.rs", include_str!("templates/app/rust/tests/serves.rs")),
            template("tests/server/mod.rs", include_str!("templates/shared/tests/server.rs")),
        ]),
        (Kind::Class, Language::Rust) => rust(vec![
            template("Cargo.toml", include_str!("templates/class/rust/manifest.toml")),
            template("src/lib.rs", include_str!("templates/class/rust/class.rs")),
            template("tests/contract.rs", include_str!("templates/class/rust/tests/contract.rs")),
        ]),
        (Kind::Hooks, Language::Rust) => rust(vec![
            template("Cargo.toml", include_str!("templates/shared/manifest.toml")),
            template("src/lib.rs", include_str!("templates/hooks/rust/hooks.rs")),
            template("tests/fires.rs", include_str!("templates/hooks/rust/tests/fires.rs")),
            template("tests/server/mod.rs", include_str!("templates/shared/tests/server.rs")),
        ]),
        (Kind::App, Language::C) => c(vec![
            template("{{source}}", include_str!("templates/app/c/app.c")),
            template("Makefile", include_str!("templates/shared/Makefile")),
            template("test.sh", include_str!("templates/app/test.sh")),
        ]),
        (Kind::Class, Language::C) => c(vec![
            template("{{source}}", include_str!("templates/class/c/class.c")),
            template("Makefile", include_str!("templates/class/Makefile")),
        ]),
        (Kind::Hooks, Language::C) => c(vec![
            template("{{source}}", include_str!("templates/hooks/c/hooks.c")),
            template("Makefile", include_str!("templates/shared/Makefile")),
            template("test.sh", include_str!("templates/hooks/test.sh")),
        ]),
        (Kind::App, Language::Cpp) => cpp(vec![
            template("{{source}}", include_str!("templates/app/cpp/app.cpp")),
            template("Makefile", include_str!("templates/shared/Makefile")),
            template("test.sh", include_str!("templates/app/test.sh")),
        ]),
        (Kind::Class, Language::Cpp) => c(vec![
            template("{{source}}", include_str!("templates/class/cpp/class.cpp")),
            template("Makefile", include_str!("templates/class/Makefile")),
        ]),
        (Kind::Hooks, Language::Cpp) => cpp(vec![
            template("{{source}}", include_str!("templates/hooks/cpp/hooks.cpp")),
            template("Makefile", include_str!("templates/shared/Makefile")),
            template("test.sh", include_str!("templates/hooks/test.sh")),
        ]),
        (Kind::App, Language::Go) => go(),
        (Kind::Class | Kind::Hooks, Language::Go) => return None,
    };
    let readme = match kind {
        Kind::App => include_str!("templates/app/README.md"),
        Kind::Class => include_str!("templates/class/README.md"),
        Kind::Hooks => include_str!("templates/hooks/README.md"),
    };
    Some(with(own, [template("README.md", readme)]))
}

fn rust(own: Vec<Template>) -> Vec<Template> {
    with(own, [template(".gitignore", "/target\n")])
}

/// A project carries its copy of the header, and is built anywhere.
fn c(own: Vec<Template>) -> Vec<Template> {
    let header = template("include/jimu.h", JIMU_H);
    with(own, [header, template(".gitignore", "/{{library}}\n")])
}

fn cpp(own: Vec<Template>) -> Vec<Template> {
    with(c(own), [template("include/jimu.hpp", JIMU_HPP)])
}

/// A file of the package of the example in Go.
macro_rules! example {
    ($name:literal) => {
        template(
            concat!("jimu/", $name),
            include_str!(concat!("../../../../plugins/examples/hello-go/jimu/", $name)),
        )
    };
}

/// With the package of the example, in which cgo finds the header.
fn go() -> Vec<Template> {
    vec![
        template("go.mod", include_str!("templates/app/go/go.mod")),
        template("{{source}}", include_str!("templates/app/go/app.go")),
        template("test.sh", include_str!("templates/app/test.sh")),
        template("Makefile", include_str!("templates/app/go/Makefile")),
        template(".gitignore", "/*.so\n/*.h\n"),
        template("jimu/jimu.h", JIMU_H),
        example!("bridge.c"),
        example!("bridge.h"),
        example!("jimu.go"),
        example!("request.go"),
        example!("response.go"),
    ]
}

fn with<const N: usize>(mut own: Vec<Template>, more: [Template; N]) -> Vec<Template> {
    own.extend(more);
    own
}

fn template(path: &'static str, text: &'static str) -> Template {
    Template { path, text }
}

const JIMU_H: &str = include_str!("../../../../worker-api/include/jimu.h");
const JIMU_HPP: &str = include_str!("../../../../worker-api/include/jimu.hpp");

//! Cycles in crates of a few lines.

use std::path::Path;

use super::find_cycles;

/// Returns the cycles of a crate of these files, as they are printed.
fn cycles(files: &[(&str, &str)]) -> Vec<String> {
    let read = |path: &Path| {
        let file = files.iter().find(|(name, _)| Path::new(name) == path);
        file.map(|(_, text)| (*text).to_owned())
    };
    find_cycles(Path::new(files[0].0), read).iter().map(ToString::to_string).collect()
}

#[test]
fn a_cycle_is_found_and_printed_with_its_lines() {
    let found = cycles(&[
        ("src/lib.rs", "//! Root.\nmod a;\nmod b;\nmod c;\n"),
        ("src/a.rs", "//! A.\n\nuse crate::b::{\n    self, B,\n};\npub struct A(B);\n"),
        ("src/b.rs", "pub struct B;\n\nfn f() { super::c::g(); }\n"),
        ("src/c.rs", "use crate::{a::{A as Other}, b};\npub fn g() {}\n"),
    ]);
    assert_eq!(found, ["src/a.rs:4 -> src/b.rs:3 -> src/c.rs:1 -> src/a.rs"]);
}

#[test]
fn a_module_and_its_children_may_import_each_other() {
    let with_b = |b| {
        cycles(&[
            ("src/lib.rs", "mod a;"),
            ("src/a/mod.rs", "mod b;\nmod c;\nuse b::B;\npub struct A(B);"),
            ("src/a/b.rs", b),
            ("src/a/c.rs", "use super::b::B;\npub struct C(B);"),
        ])
    };
    assert_eq!(with_b("use super::A;\npub struct B;"), [""; 0]);
    let found = with_b("use super::c::C;\npub struct B;");
    assert_eq!(found, ["src/a/b.rs:1 -> src/a/c.rs:1 -> src/a/b.rs"]);
}

#[test]
fn a_re_export_counts_for_the_file_that_defines_the_name() {
    let with_c = |c| {
        cycles(&[
            ("src/lib.rs", "mod a;\nmod c;\npub use a::*;"),
            (
                "src/a/mod.rs",
                "mod b;\nmod d;\npub(crate) use self::b::{B, B as Also};\npub use d::D;",
            ),
            ("src/a/b.rs", "use crate::c::C;\npub struct B;"),
            ("src/a/d.rs", "pub struct D;"),
            ("src/c.rs", c),
        ])
    };
    assert_eq!(with_c("use crate::a::D;\npub struct C;"), [""; 0]);
    let cycle = ["src/a/b.rs:1 -> src/c.rs:1 -> src/a/b.rs"];
    assert_eq!(with_c("use crate::a::Also;\npub struct C;"), cycle);
    assert_eq!(with_c("use crate::B;\npub struct C;"), cycle);
    assert_eq!(with_c("pub struct C(super::a::B);"), cycle);
}

#[test]
fn a_path_through_an_imported_module_counts_for_the_item() {
    let with_b = |b| {
        cycles(&[
            ("src/main.rs", "mod a;\nmod b;"),
            ("src/a/mod.rs", "pub mod c;\nuse crate::b::f;\nfn g() { f() }"),
            ("src/a/c.rs", "pub fn h() {}"),
            ("src/b.rs", b),
        ])
    };
    assert_eq!(with_b("use crate::a;\npub fn f() { a::c::h(); }"), [""; 0]);
    let found = with_b("use crate::a;\npub fn f() { assert!(a::g()); }");
    assert_eq!(found, ["src/a/mod.rs:2 -> src/b.rs:2 -> src/a/mod.rs"]);
}

#[test]
fn an_exported_macro_is_in_the_file_that_defines_it() {
    let found = cycles(&[
        ("src/lib.rs", "mod a;\nmod b;"),
        ("src/a.rs", "use crate::b::B;\n#[macro_export]\nmacro_rules! make { () => {} }"),
        ("src/b.rs", "use crate::make;\npub struct B;"),
    ]);
    assert_eq!(found, ["src/a.rs:1 -> src/b.rs:1 -> src/a.rs"]);
}

#[test]
fn tests_comments_and_literals_import_nothing() {
    let b = r##"
        //! [`crate::a::A`] // crate::a::A
        /* crate::a::A /* nested */ crate::a::A */
        pub struct B<'a>(&'a str, char);
        const TEXT: &str = "crate::a::A \" crate::a::A";
        const RAW: &str = r#"crate::a::A" crate::a::A"#;
        const QUOTE: char = '"';
        const ESCAPED: char = '\'';
        fn f() -> impl Sized + use<> { crate::b::f(); <u8 as Into<u16>>::a::A }
        #[cfg(test)]
        use crate::a::A;
        struct Fields { #[cfg(test)] a: crate::a::A, other: u8 }
        #[cfg(test)]
        mod tests { use crate::a::A; }
    "##;
    let a = ("src/a.rs", "use crate::b::B;\npub struct A;");
    assert_eq!(cycles(&[("src/lib.rs", "mod a;\nmod b;"), a, ("src/b.rs", b)]), [""; 0]);
    let b = format!("{b}\n#[cfg(not(test))]\nuse crate::a::A;");
    assert_eq!(cycles(&[("src/lib.rs", "mod a;\nmod b;"), a, ("src/b.rs", &b)]).len(), 1);
}

#[test]
fn a_module_in_a_block_is_part_of_its_file() {
    let found = cycles(&[
        ("src/lib.rs", "mod a;\nmod b;"),
        (
            "src/a.rs",
            "pub mod inner {\n    use super::A;\n    use super::super::b::B;\n}\npub struct A;",
        ),
        ("src/b.rs", "use crate::a::inner;\npub struct B;\nfn f() { inner::g() }"),
    ]);
    assert_eq!(found, ["src/a.rs:3 -> src/b.rs:3 -> src/a.rs"]);
}

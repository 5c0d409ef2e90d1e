//! The layout of everything that crosses the boundary, held against the one in the repository: a change to the ABI
//! shows in review, and forces a decision about the version.
//!
//! `UPDATE_ABI=1 cargo test -p worker-api` writes it again.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use worker_api::abi::StableAbi;
use worker_api::abi::std_types::utypeid::UTypeId;
use worker_api::abi::type_layout::{TLFieldsIterator, TypeLayout};
use worker_api::{AppModuleRef, HooksModuleRef, WorkerClassRef};

#[test]
fn the_abi_is_the_one_that_was_promised() {
    let mut described = Described::default();
    describe(<WorkerClassRef as StableAbi>::LAYOUT, &mut described);
    describe(<AppModuleRef as StableAbi>::LAYOUT, &mut described);
    describe(<HooksModuleRef as StableAbi>::LAYOUT, &mut described);
    let now = described.text;

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("abi/1.layout");
    if std::env::var_os("UPDATE_ABI").is_some() {
        fs::write(&file, &now).expect("the snapshot can be written");
    }
    let promised = fs::read_to_string(&file).expect("the snapshot is in the repository");
    assert!(
        now == promised,
        "the ABI is not that of abi/1.layout: see docs/abi.md, then run with UPDATE_ABI=1\n{}",
        first_difference(&promised, &now)
    );
}

/// Where two layouts begin to differ: in which type, and how.
fn first_difference(promised: &str, now: &str) -> String {
    let same = promised.lines().zip(now.lines()).take_while(|(one, other)| one == other).count();
    let line_of = |text: &str| text.lines().nth(same).unwrap_or("(nothing)").trim().to_owned();
    let is_heading = |line: &&str| !line.is_empty() && !line.starts_with(' ');
    let before: Vec<&str> = promised.lines().take(same + 1).collect();
    let heading = before.into_iter().rev().find(is_heading).unwrap_or_default();
    format!("line {}, {heading}\n- {}\n+ {}", same + 1, line_of(promised), line_of(now))
}

/// What was described so far, in the order in which it was met.
#[derive(Default)]
struct Described {
    seen: Vec<UTypeId>,
    text: String,
}

/// Describes a type and all that it is made of, each once.
fn describe(layout: &'static TypeLayout, described: &mut Described) {
    if described.seen.contains(&layout.get_utypeid()) {
        return;
    }
    described.seen.push(layout.get_utypeid());
    let (size, alignment) = (layout.size(), layout.alignment());
    let mut text = format!("{}: {size} bytes, aligned to {alignment}\n", layout.full_type());
    let mut parts = Vec::new();
    if let Some(fields) = layout.get_fields() {
        describe_fields("field", fields.iter(), &mut text, &mut parts);
    }
    describe_fields("behind", layout.phantom_fields().iter(), &mut text, &mut parts);
    text.push('\n');
    described.text.push_str(&text);
    for part in parts {
        describe(part, described);
    }
}

fn describe_fields(
    kind: &str,
    fields: TLFieldsIterator,
    text: &mut String,
    parts: &mut Vec<&'static TypeLayout>,
) {
    for field in fields {
        let _ = writeln!(text, "    {kind} {}: {}", field.name(), field.full_type());
        for function in field.function_range() {
            let _ = writeln!(text, "        {function}");
            for layout in function.param_type_layouts.iter() {
                parts.push(layout());
            }
            if let Some(layout) = function.return_type_layout() {
                parts.push(layout());
            }
        }
        parts.push(field.layout());
    }
}

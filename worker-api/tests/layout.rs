//! The layout of everything that crosses the boundary, held against the one in the repository: a change to the ABI
//! shows in review, and forces a decision about the version.
//!
//! `UPDATE_ABI=1 cargo test -p worker-api` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use worker_api::abi::StableAbi;
use worker_api::abi::type_layout::{TLFieldsIterator, TypeLayout};
use worker_api::{AppModuleRef, WorkerClassRef};

#[test]
fn the_abi_is_the_one_that_was_promised() {
    let mut types = BTreeMap::new();
    describe(<WorkerClassRef as StableAbi>::LAYOUT, &mut types);
    describe(<AppModuleRef as StableAbi>::LAYOUT, &mut types);
    let now: String = types.into_values().collect();

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("abi/1.layout");
    if std::env::var_os("UPDATE_ABI").is_some() {
        fs::write(&file, &now).expect("the snapshot can be written");
    }
    let promised = fs::read_to_string(&file).expect("the snapshot is in the repository");
    assert!(
        now == promised,
        "the ABI differs from abi/1.layout at line {}: see docs/abi.md, then run with UPDATE_ABI=1",
        1 + now.lines().zip(promised.lines()).take_while(|(one, other)| one == other).count()
    );
}

/// Describes a type and all that it is made of, each once.
fn describe(layout: &'static TypeLayout, types: &mut BTreeMap<String, String>) {
    let name = layout.full_type().to_string();
    if types.contains_key(&name) {
        return;
    }
    let mut text = format!("{name}: {} octets, aligned to {}\n", layout.size(), layout.alignment());
    types.insert(name.clone(), String::new());
    let fields = layout.get_fields().map(|fields| fields.iter());
    for (kind, fields) in [("field", fields), ("behind", Some(layout.phantom_fields().iter()))] {
        fields.map(|fields| describe_fields(kind, fields, &mut text, types));
    }
    text.push('\n');
    types.insert(name, text);
}

fn describe_fields(
    kind: &str,
    fields: TLFieldsIterator,
    text: &mut String,
    types: &mut BTreeMap<String, String>,
) {
    for field in fields {
        let _ = writeln!(text, "    {kind} {}: {}", field.name(), field.full_type());
        for function in field.function_range().iter() {
            let _ = writeln!(text, "        {function}");
            for layout in function.param_type_layouts.iter() {
                describe(layout(), types);
            }
            if let Some(layout) = function.return_type_layout() {
                describe(layout(), types);
            }
        }
        describe(field.layout(), types);
    }
}

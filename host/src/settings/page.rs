//! The reference page, generated from the table. `docs/settings.md` is its output; a test compares them.

use std::fmt::{self, Write as _};

use super::{
    declare::Setting,
    flags::APPLICATION,
    table::TABLE,
    unsupported::{IGNORED, MOVED, UNSUPPORTED},
    value::Kind,
};

/// Returns the whole page as Markdown.
pub fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    // Writing to a string cannot fail.
    let _ = write_settings(&mut page);
    page.push_str(MOVED_INTRODUCTION);
    let _ = write_names(&mut page, MOVED);
    page.push_str(IGNORED_INTRODUCTION);
    let _ = write_names(&mut page, IGNORED);
    page.push_str(UNSUPPORTED_INTRODUCTION);
    let _ = write_names(&mut page, UNSUPPORTED);
    page
}

fn write_settings(page: &mut String) -> fmt::Result {
    let mut section = "";
    for setting in TABLE {
        if setting.section != section {
            section = setting.section;
            writeln!(page, "\n## {section}")?;
        }
        writeln!(page, "\n### {}\n", setting.name)?;
        for paragraph in setting.paragraphs() {
            writeln!(page, "{paragraph}\n")?;
        }
        for (label, text) in facts(setting) {
            writeln!(page, "- {label}: {text}")?;
        }
    }
    Ok(())
}

/// Returns the list below a setting's text.
fn facts(setting: &Setting) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let flags = flags(setting);
    if !flags.is_empty() {
        facts.push(("Flag", flags.join(", ")));
    }
    facts.push(("Value", value(setting)));
    facts.push(("Default", default(setting)));
    if let Some(variable) = setting.variable {
        facts.push(("Default from the environment", format!("`{}`", variable.name)));
    }
    facts.push(("A change takes effect", setting.effect.describe().to_owned()));
    facts
}

fn flags(setting: &Setting) -> Vec<String> {
    if setting.name == APPLICATION {
        return vec!["none; the argument `APPLICATION`".to_owned()];
    }
    let short = setting.short.map(|short| format!("`-{short}`"));
    let longs = setting.long.iter().chain(setting.aliases).map(|long| format!("`--{long}`"));
    short.into_iter().chain(longs).collect()
}

fn value(setting: &Setting) -> String {
    let kind = setting.kind.expected();
    let kind = kind.strip_prefix("expected ").unwrap_or(&kind);
    match setting.bare {
        Some(bare) if setting.kind != Kind::Bool => format!("{kind}; `{bare}` for the bare flag"),
        Some("false") => format!("{kind}; the flag means false"),
        _ => kind.to_owned(),
    }
}

fn default(setting: &Setting) -> String {
    match setting.default {
        None => "unset".to_owned(),
        Some("") => "none".to_owned(),
        Some(text) => format!("`{text}`"),
    }
}

fn write_names(page: &mut String, table: &[(&[&str], &str)]) -> fmt::Result {
    for (names, reason) in table {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        writeln!(page, "| {} | {reason} |", names.join(", "))?;
    }
    Ok(())
}

const INTRODUCTION: &str = "\
# Settings

This page is generated from the table in `host/src/settings/table.rs`. Names, flags and meanings are
gunicorn's if gunicorn has the setting; [gunicorn-settings.md](gunicorn-settings.md) compares the two.

If several places set a value, the first of these wins:

1. a request of `hostctl`,
2. the command line,
3. the flags in the environment variable `JIMU_CMD_ARGS`, split as a shell does,
4. the flags in gunicorn's `GUNICORN_CMD_ARGS`,
5. the settings file: the one that `--config` names, else `host.toml`, else `gunicorn.conf.py`, in
   the directory in which the server starts,
6. the environment variable that replaces the default,
7. the default.

If a directory has both files, `host.toml` is read, and a warning names both.

`host --print-config` prints all effective values and where each comes from, as a valid settings
file. `host --check-config` checks the settings. If settings are invalid, `host` exits with
status 78 and prints one line for each problem:

    error: host.toml:3: unknown key \"worker\"; did you mean \"workers\"?

A TOML file may contain, besides the settings below, tables for plugins, which the server passes on
unchanged: `[class.NAME]` for the worker class NAME, `[application]`, and `[hooks]`. A file that ends
in `.py`, `file:PATH` and `python:MODULE` are gunicorn's configuration in Python: see
[gunicorn.md](gunicorn.md#use-gunicornconfpy-as-it-is).
";

const MOVED_INTRODUCTION: &str = "
## Settings of gunicorn that exist in another form

| setting | how |
| --- | --- |
";

const IGNORED_INTRODUCTION: &str = "
## Settings of gunicorn that are accepted and have no effect

Each of them logs a warning with the reason.

| setting | why |
| --- | --- |
";

const UNSUPPORTED_INTRODUCTION: &str = "
## Settings of gunicorn that do not exist here

| setting | why |
| --- | --- |
";

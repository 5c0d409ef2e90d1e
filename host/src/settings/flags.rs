//! The command line: the clap command generated from the table, and the parsed arguments.

use std::{ffi::OsString, path::PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, builder::ValueParser, parser::ValueSource};

use super::{
    declare::Setting,
    table::TABLE,
    unsupported::{IGNORED_FLAGS, IgnoredFlag},
    value::{Kind, Value},
};

/// What to do with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Serve.
    Serve,
    /// Load everything, report the result, and exit.
    CheckConfig,
    /// Print the effective settings and exit.
    PrintConfig,
    /// Check whether a worker class fulfils its contract, which does not include how safely it parses HTTP, and exit.
    CheckWorker {
        /// Path or short name of the class.
        class: String,
        /// Settings file named on the command line.
        config: Option<PathBuf>,
    },
}

/// Parsed command line.
#[derive(Debug)]
pub(super) struct Flags {
    pub(super) values: Vec<(usize, Value)>,
    /// Names of gunicorn's settings that were given and have no effect.
    pub(super) ignored: Vec<&'static str>,
    pub(super) config: Option<PathBuf>,
    pub(super) action: Action,
}

/// Parses flags; `args` does not include the program's name.
pub(super) fn parse(args: &[OsString]) -> Result<Flags, clap::Error> {
    let program = OsString::from("host");
    let matches = command().try_get_matches_from(std::iter::once(program).chain(joined(args)))?;
    let given = |(index, setting)| take(&matches, setting).map(|value| (index, value));
    let config: Option<PathBuf> = matches.get_one(CONFIG).cloned();
    Ok(Flags {
        values: TABLE.iter().enumerate().filter_map(given).collect(),
        ignored: IGNORED_FLAGS
            .iter()
            .map(|flag| flag.name)
            .filter(|name| matches.value_source(name) == Some(ValueSource::CommandLine))
            .collect(),
        action: if let Some(class) = matches.get_one::<String>(CHECK_WORKER) {
            Action::CheckWorker { class: class.clone(), config: config.clone() }
        } else if matches.get_flag(CHECK) {
            Action::CheckConfig
        } else if matches.get_flag(PRINT) {
            Action::PrintConfig
        } else {
            Action::Serve
        },
        config,
    })
}

/// Joins a flag with an optional value to the value after it: `--proxy-protocol v2`, which gunicorn accepts,
/// becomes `--proxy-protocol=v2`. A word that is not a value of the flag is the application.
fn joined(args: &[OsString]) -> Vec<OsString> {
    let takes = |flag: &OsString, word: &OsString| {
        let setting = TABLE.iter().filter(|setting| setting.bare_or_value).find(|setting| {
            let name = flag.to_str().and_then(|flag| flag.strip_prefix("--"));
            name.is_some() && setting.long == name
        });
        setting.zip(word.to_str()).is_some_and(|(setting, word)| setting.parse(word).is_ok())
    };
    let mut joined: Vec<OsString> = Vec::with_capacity(args.len());
    for word in args {
        match joined.last_mut() {
            Some(flag) if takes(flag, word) => {
                flag.push("=");
                flag.push(word);
            }
            _ => joined.push(word.clone()),
        }
    }
    joined
}

/// Returns the command of `host`, with a flag for every setting that has one.
pub fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).help(help).action(ArgAction::SetTrue).help_heading("Settings")
    };
    Command::new("host")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A pre-fork application server whose worker class is a shared library")
        .override_usage("host [OPTIONS] [APPLICATION]")
        .arg(
            Arg::new(CONFIG)
                .short('c')
                .long(CONFIG)
                .value_name("PATH")
                .value_parser(clap::value_parser!(PathBuf))
                .help(
                    "Settings file: TOML, or gunicorn's in Python, as FILE.py or python:MODULE [default: host.toml, else \
                     gunicorn.conf.py]",
                )
                .help_heading("Settings"),
        )
        .arg(flag(
            CHECK,
            "Load settings, worker class and application, report whether they are valid, and exit",
        ))
        .arg(flag(PRINT, "Print the effective settings with their origins, and exit"))
        .arg(
            Arg::new(CHECK_WORKER)
                .long(CHECK_WORKER)
                .value_name("NAME|PATH")
                .help("Check in private servers whether a worker class fulfils its contract, which does not include how safely it parses HTTP, and exit")
                .help_heading("Settings"),
        )
        .args(TABLE.iter().filter_map(argument))
        .args(IGNORED_FLAGS.iter().map(ignored_argument))
}

/// A flag of gunicorn that has no effect: accepted, and hidden.
fn ignored_argument(flag: &'static IgnoredFlag) -> Arg {
    let arg = Arg::new(flag.name).long(flag.long).hide(true).overrides_with(flag.name);
    let arg = match flag.short {
        Some(short) => arg.short(short),
        None => arg,
    };
    if flag.takes_value {
        arg.action(ArgAction::Set).value_parser(ValueParser::os_string())
    } else {
        arg.action(ArgAction::SetTrue)
    }
}

fn argument(setting: &'static Setting) -> Option<Arg> {
    let parser = ValueParser::new(|text: &str| setting.parse(text));
    let arg = Arg::new(setting.name)
        .help(help(setting))
        .long_help(long_help(setting))
        .value_parser(parser)
        .help_heading(setting.section);
    if setting.name == APPLICATION {
        return Some(arg.value_name("APPLICATION").help_heading(None));
    }
    let arg = arg
        .long(setting.long?)
        .visible_aliases(setting.aliases.iter().copied())
        .value_name(setting.kind.placeholder());
    let arg = if setting.kind.is_list() {
        arg.action(ArgAction::Append).allow_hyphen_values(setting.name == PYTHON_OPTIONS)
    } else {
        // The last one counts, as in gunicorn: a script can put its flags before those of its caller.
        arg.action(ArgAction::Set).overrides_with(setting.name)
    };
    let arg = match setting.short {
        Some(short) => arg.short(short),
        None => arg,
    };
    Some(match setting.bare {
        Some(bare) if setting.bare_or_value => {
            arg.num_args(0..=1).require_equals(true).default_missing_value(bare)
        }
        Some(bare) => arg.num_args(0).default_missing_value(bare),
        None => arg,
    })
}

fn help(setting: &Setting) -> String {
    let summary = setting.flag_summary.map_or_else(|| setting.summary(), str::to_owned);
    let summary = summary.replace('`', "");
    let summary = summary.strip_suffix('.').unwrap_or(&summary);
    format!("{summary}{}", facts(setting, " "))
}

fn long_help(setting: &Setting) -> String {
    let mut paragraphs = setting.paragraphs();
    if let (Some(summary), Some(first)) = (setting.flag_summary, paragraphs.first_mut()) {
        summary.clone_into(first);
    }
    let text = paragraphs.join("\n\n").replace('`', "");
    format!("{text}{}", facts(setting, "\n\n"))
}

/// Returns the choices and the default in brackets, each preceded by `separator`.
fn facts(setting: &Setting, separator: &str) -> String {
    let choices = match setting.kind {
        Kind::Choice(words) => Some(format!("{separator}[one of: {}]", words.join(", "))),
        _ => None,
    };
    let default = setting
        .default
        .filter(|text| setting.kind != Kind::Bool && !text.is_empty())
        .map(|text| format!("{separator}[default: {text}]"));
    choices.into_iter().chain(default).collect()
}

/// Returns the value given for a setting; repeated flags of a list are combined.
fn take(matches: &ArgMatches, setting: &Setting) -> Option<Value> {
    if setting.long.is_none() && setting.name != APPLICATION {
        return None;
    }
    let mut values = matches.get_many::<Value>(setting.name)?;
    if !setting.kind.is_list() {
        return values.next_back().cloned();
    }
    Some(Value::List(values.filter_map(Value::to_list).flatten().collect()))
}

/// The setting that is given without a flag.
pub(super) const APPLICATION: &str = "wsgi_app";
/// The setting whose values are options.
const PYTHON_OPTIONS: &str = "python_options";

const CONFIG: &str = "config";
const CHECK: &str = "check-config";
const PRINT: &str = "print-config";
const CHECK_WORKER: &str = "check-worker";

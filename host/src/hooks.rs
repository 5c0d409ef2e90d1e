//! Hooks that are commands: `[hooks] when_ready = ["notify-send", "up"]`. They run on events of the arbiter, but
//! the mold of the generation starts them, as the user that the workers run as. No process waits for a command,
//! and its output goes to the error log.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::log::ErrorLog;
use crate::process;

/// The commands of a settings file, by event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Commands(Vec<(&'static str, Vec<String>)>);

impl Commands {
    /// Reads the section `[hooks]`. Keys that are not events are options of the hook plugin. Returns an error
    /// for an event with an invalid command.
    pub fn read(section: &toml::Table) -> Result<Self, String> {
        if let Some(event) = EVENTS_OF_WORKERS.iter().find(|event| section.contains_key(**event)) {
            return Err(format!(
                "hooks.{event}: commands can run for {} only; use a hook plugin for {event}",
                EVENTS.join(", ")
            ));
        }
        let commands = EVENTS.iter().filter_map(|event| {
            let value = section.get(*event)?;
            let words = value.as_array().and_then(|words| {
                let word = |word: &toml::Value| word.as_str().map(str::to_owned);
                words.iter().map(word).collect::<Option<Vec<_>>>()
            });
            Some(match words.filter(|words| !words.is_empty()) {
                Some(words) => Ok((*event, words)),
                None => Err(format!("hooks.{event}: expected [\"COMMAND\", \"ARGUMENT\", …]")),
            })
        });
        commands.collect::<Result<_, _>>().map(Self)
    }

    /// Starts the command of an event, if configured.
    pub fn start(&self, event: &str, facts: &[i64], log: &ErrorLog) {
        let Some((_, words)) = self.0.iter().find(|(of, _)| *of == event) else { return };
        let facts: Vec<String> = facts.iter().map(ToString::to_string).collect();
        let result = log.output().and_then(|(out, err)| {
            let mut command = Command::new(Path::new(&words[0]));
            command
                .args(&words[1..])
                .env("JIMU_EVENT", event)
                .env("JIMU_FACTS", facts.join(" "))
                .stdin(Stdio::null())
                .stdout(out)
                .stderr(err);
            process::start_detached(&mut command)
        });
        if let Err(error) = result {
            tracing::error!("hook {event}: cannot start {:?}: {error}", words[0]);
        }
    }
}

/// Returns whether `name` is an event that a plugin or a Python module can handle.
pub fn is_event(name: &str) -> bool {
    EVENTS.contains(&name) || EVENTS_OF_WORKERS.contains(&name)
}

/// The arbiter aborts a worker. The only event that plugins and Python handle in another process than commands
/// do: in the worker itself.
pub const WORKER_ABORT: &str = "worker_abort";

/// A worker has exited, or a mold that had loaded the application.
pub const CHILD_EXIT: &str = "child_exit";

/// Events of the arbiter.
const EVENTS: [&str; 8] = [
    "on_starting",
    "on_reload",
    "when_ready",
    WORKER_ABORT,
    CHILD_EXIT,
    "nworkers_changed",
    "pre_exec",
    "on_exit",
];

/// Events of single workers and requests. Starting a process for each would be slower than the event itself.
const EVENTS_OF_WORKERS: [&str; 7] = [
    "pre_fork",
    "post_fork",
    "post_worker_init",
    "worker_int",
    "worker_exit",
    "pre_request",
    "post_request",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Commands, String> {
        Commands::read(&text.parse().unwrap())
    }

    #[test]
    fn commands_are_lists_of_words_under_the_names_of_events() {
        let commands = read("when_ready = ['echo', 'a b']\nof_the_plugin = 3\n").unwrap();
        let words = vec!["echo".to_owned(), "a b".to_owned()];
        assert_eq!(commands, Commands(vec![("when_ready", words)]));
        for (text, words) in [
            ("when_ready = 'echo'", "hooks.when_ready: expected ["),
            ("on_exit = []", "hooks.on_exit: expected ["),
            ("on_exit = [1]", "hooks.on_exit: expected ["),
            ("pre_request = ['x']", "hooks.pre_request: commands can run for on_starting, "),
        ] {
            assert!(read(text).unwrap_err().starts_with(words), "{text}");
        }
    }
}

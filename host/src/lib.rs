//! The command `host` as a library, so that its parts can be tested separately.
//!
//! | module | purpose | runs in |
//! | --- | --- | --- |
//! | [`command`] | the installed command: `host` or `hostctl` | arbiter, hostctl |
//! | [`serve`] | main function: from the command line to the arbiter | arbiter |
//! | [`check`] | `--check-worker`: the contract of a worker class, against scratch servers | a separate process |
//! | [`settings`] | one declaration of all settings: flags, file, help, reference page | arbiter |
//! | [`log`] | the error log and the access log | everywhere |
//! | [`arbiter`] | the main loop: generations, signals, reloads, stops | arbiter |
//! | [`listener`] | the sockets that workers accept from | arbiter, inherited by all |
//! | [`control`] | the control socket, and hostctl's side of it | arbiter, hostctl |
//! | [`hostctl`] | the command `hostctl` | hostctl |
//! | [`pidfile`], [`systemd`], [`daemon`] | pid file, service manager, background | arbiter |
//! | [`mold`] | loads the payload of a generation, forks its workers | molds |
//! | [`evaluation`] | evaluates a settings file in Python | a separate process |
//! | [`interpreter`] | executes the interpreter of a Python application, in which the mold continues | molds |
//! | [`hooks`] | hooks that are commands | molds |
//! | [`stack`], `namer` | stacks of panics and hanging requests, named outside of the worker | workers, molds, separate processes |
//! | [`payload`] | the interface between the process model and what it runs | molds, workers |
//! | [`plugin`] | worker classes and applications on the host's side of the ABI | molds, workers |
//! | [`worker`] | a worker's slot, signals, and connection to the arbiter | workers |
//! | [`scoreboard`] | shared memory: state and counters of each worker | everywhere |
//! | [`status`] | Prometheus, StatsD and the status page, from the scoreboard | a separate process |
//! | [`watcher`] | `reload`: watches the files of a generation | a separate process |
//! | [`message`] | messages between arbiter, molds and workers | everywhere |
//! | `allocator` | memory that workers keep | workers |
//! | `title` | process titles in `ps` | everywhere |
//! | [`similar`] | similarity of words, for "did you mean" | everywhere |
//! | [`exit_status`] | exit statuses of all processes | everywhere |
//! | `capacity` | how many workers fit into the container | arbiter |
//! | [`process`], [`descriptors`], [`privileges`], [`signal_inbox`], [`clock`], `limits`, `memfd`, `safe_path`, `socket_file` | system calls, each in one place | everywhere |
//!
//! # Invariants
//!
//! - The arbiter loads no plugin and starts no thread.
//! - Only this crate forks, and only in [`process`].
//! - A worker is a child of the arbiter, whichever process forked it.

mod allocator;
pub mod arbiter;
mod bytes;
mod capacity;
pub mod check;
pub mod clock;
pub mod command;
pub mod control;
pub mod daemon;
pub mod descriptors;
pub mod evaluation;
pub mod exit_status;
pub mod hooks;
pub mod hostctl;
pub mod interpreter;
mod limits;
pub mod listener;
pub mod log;
mod memfd;
pub mod message;
pub mod mold;
mod namer;
pub mod payload;
pub mod pidfile;
pub mod plugin;
pub mod privileges;
pub mod process;
mod safe_path;
pub mod scoreboard;
pub mod serve;
pub mod settings;
pub mod signal_inbox;
pub mod similar;
mod socket_file;
pub mod stack;
pub mod status;
pub mod systemd;
mod title;
pub mod watcher;
pub mod worker;

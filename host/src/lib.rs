//! The command `host` as a library, so that its parts can be tested one by one.
//!
//! | module | what it is for | runs in |
//! | --- | --- | --- |
//! | [`serve`] | from the command line to the arbiter | arbiter |
//! | [`check`] | `--check-worker`: the contract of a worker class, against scratch servers | a process of its own |
//! | [`settings`] | one declaration of all settings: flags, file, help, reference page | arbiter |
//! | [`log`] | the error log and the access log | everywhere |
//! | [`arbiter`] | the main loop: generations, signals, reloads, the end | arbiter |
//! | [`listener`] | the sockets that workers accept from | arbiter, inherited by all |
//! | [`control`] | the control socket, and hostctl's side of it | arbiter, hostctl |
//! | [`pidfile`], [`systemd`], [`daemon`] | what surrounds a server | arbiter |
//! | [`mold`] | loads the payload of a generation, forks its workers | molds |
//! | [`hooks`] | hooks that are commands | molds |
//! | [`payload`] | the seam behind which worker class and application are | molds, workers |
//! | [`plugin`] | worker classes and applications on the host's side of the ABI | molds, workers |
//! | [`worker`] | a worker's slot, signals, tie to the arbiter | workers |
//! | [`scoreboard`] | shared memory: what each worker does | everywhere |
//! | [`status`] | Prometheus, StatsD and the status page, from the scoreboard | a process of its own |
//! | [`watcher`] | `reload`: watches the files of a generation | a process of its own |
//! | [`message`] | what arbiter, molds and workers say to each other | everywhere |
//! | `title` | the names of the processes in `ps` | everywhere |
//! | [`similar`] | how alike two words are, for "did you mean" | everywhere |
//! | [`process`], [`privileges`], [`signals`], [`clock`], `safe_path`, `socket_file` | system calls, each in one place | everywhere |
//!
//! **Invariants:** the arbiter loads no plugin and starts no thread; only this crate forks, and it
//! does so in [`process`]; a worker is the child of the arbiter, whoever forked it.

pub mod arbiter;
pub mod check;
pub mod clock;
pub mod control;
pub mod daemon;
pub mod hooks;
mod limits;
pub mod listener;
pub mod log;
pub mod message;
pub mod mold;
pub mod payload;
pub mod pidfile;
pub mod plugin;
pub mod privileges;
pub mod process;
mod safe_path;
pub mod scoreboard;
pub mod serve;
pub mod settings;
pub mod signals;
pub mod similar;
mod socket_file;
pub mod status;
pub mod systemd;
mod title;
pub mod watcher;
pub mod worker;

//! The process model, seen from outside: a whole server with a double in place of worker class and
//! application (`examples/double.rs`).

mod faults;
mod life;
mod reloads;
mod server;
mod upgrades;

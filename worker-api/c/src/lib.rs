//! `jimu.h` in Rust. Plugins of other languages become objects of `worker-api`, and the objects that they receive get the
//! form of `jimu.h`. The host uses both directions; nothing else in the server knows which door a plugin came through.
//!
//! ```text
//!     a C application          from_c::app  ──▶ RawApp         called by any worker class
//!       its exchange           to_c::exchange ◀── RawExchange
//!     a C worker class         from_c::worker ──▶ RawWorker    run by the host
//!       its application        to_c::app ◀── RawApp
//! ```
//!
//! | module | contents |
//! | --- | --- |
//! | [`tables`] | the types of `jimu.h`; a test compares them with the header |
//! | [`values`] | text, headers, heads, failures, in both directions |
//! | [`mod@from_c`] | objects of the other side as objects of `worker-api`, and the check of what a library exports |
//! | [`to_c`] | objects of `worker-api` for the other side |
//! | `small` | wakers and tasks, in both directions |
//!
//! # Invariants
//!
//! - Nothing allocated on one side is freed on the other.
//! - No function that the other side calls unwinds.
//! - No function of a table is called before the table was checked.

pub mod from_c;
pub mod tables;
pub mod to_c;
pub mod values;

mod small;

//! The result of a step of a body's decoder.

use std::ops::Range;

/// Result of [`BodyDecoder::decode`](super::BodyDecoder::decode).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// Number of input bytes consumed. The rest is for the next call, or belongs to the next request if
    /// `done`.
    pub consumed: usize,
    /// Range of the input that is body data; may be empty. Always within the consumed bytes.
    pub data: Range<usize>,
    /// Whether the body is complete.
    pub done: bool,
}

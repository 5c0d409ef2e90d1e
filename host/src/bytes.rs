//! Paths and arguments as bytes, for serde: JSON has no other form for text that is not valid UTF-8.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

/// Writes the bytes of a path or an argument.
pub(crate) fn serialize<S: Serializer>(
    text: impl AsRef<OsStr>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    text.as_ref().as_bytes().serialize(serializer)
}

/// Reads them.
pub(crate) fn deserialize<'de, T: From<OsString>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(OsString::from_vec(Vec::deserialize(deserializer)?).into())
}

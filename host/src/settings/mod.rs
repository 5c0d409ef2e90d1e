//! The settings: one declaration from which flags, file keys, help and the reference page come.

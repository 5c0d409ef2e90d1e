//! The sync worker class: one request at a time.

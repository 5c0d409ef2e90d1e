//! The error log and the access log: what is written, and where to.

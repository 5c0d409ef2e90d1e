//! The methods of the server's object.

use std::ffi::CStr;

use crate::server::Server;
use crate::{Method, Native, drain, faults, jimu, process};

impl Native for Server {
    const NAME: &'static CStr = c"jimu.Server";
    const METHODS: &'static [&'static [Method<Self>]] =
        &[jimu::METHODS, drain::METHODS, process::METHODS, faults::METHODS];
}

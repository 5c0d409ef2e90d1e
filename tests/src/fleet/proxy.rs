//! The process of a proxy, in the network of the proxy.

use std::{os::unix::process::CommandExt as _, process::Command, thread, time::Duration};

use nix::{sys::signal::Signal, unistd::Pid};

use super::network::Network;
use crate::{launch::Launched, output::Output, scene, wait};

/// A running proxy. It ends when it is dropped, and with this process.
#[derive(Debug)]
pub(super) struct Proxy(Launched);

impl Proxy {
    /// Starts it, and waits until it accepts connections, for which it has no event.
    pub(super) fn start(network: &Network, mut command: Command) -> Self {
        network.center().contain(&mut command);
        // SAFETY: prctl takes integers and accesses no memory; it is safe after a fork.
        unsafe {
            command
                .pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
        }
        let proxy = Self(Launched::start(command));
        scene::own(proxy.pid());
        let limit = Duration::from_secs(20);
        wait::until("the proxy accepts connections", limit, || network.connect().map(drop));
        proxy
    }

    /// Returns its first process.
    pub(super) fn pid(&self) -> Pid {
        self.0.pid()
    }

    /// Returns its standard error.
    pub(super) fn log(&self) -> &Output {
        &self.0.log
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if thread::panicking() {
            scene::explain(&format!("--- {}\n{}---\n", self.0.command(), self.0.log.text()));
        }
    }
}

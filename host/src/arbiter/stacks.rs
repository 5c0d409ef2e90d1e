//! Stacks that workers report: the mold has their functions named, and what it cannot take is logged as it is.

use nix::unistd::Pid;

use super::Arbiter;
use super::generation::Generation;
use super::handles::{Mold, MoldStage};
use crate::message::ToMold;
use crate::process;
use crate::stack::StackReport;

impl Arbiter {
    /// Worker `sender` has reported a stack.
    pub(super) fn on_stack(&mut self, id: u32, sender: Pid, report: StackReport) {
        let Some(generation) = self.generations.by_id_mut(id) else { return };
        if generation.find_worker(sender).is_none() {
            return tracing::warn!("process {sender} is no worker but reports a stack: ignored");
        }
        let pid = process::number(sender);
        if let Err(report) = generation.pass_to_mold(pid, report) {
            report.log_unnamed(&self.log, pid);
        }
    }
}

impl Generation {
    /// Gives a stack to the mold; returns it if there is no mold, or one that has not taken the last ones.
    fn pass_to_mold(&mut self, pid: u32, report: StackReport) -> Result<(), Box<StackReport>> {
        let is_free =
            |mold: &&mut Mold| mold.stage == MoldStage::Loaded && mold.untaken_stacks < UNTAKEN_MAX;
        let Some(mold) = self.mold.as_mut().filter(is_free) else { return Err(Box::new(report)) };
        let message = ToMold::Stack { pid, report: Box::new(report) };
        if let (Err(_), ToMold::Stack { report, .. }) = (mold.command.send(&message), message) {
            return Err(report);
        }
        mold.untaken_stacks += 1;
        Ok(())
    }
}

/// Stacks that a mold may have before it: a flood of them leaves room for the other messages.
const UNTAKEN_MAX: usize = 4;

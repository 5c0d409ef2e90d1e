//! When the health check of a new generation runs ([`super::probe`]), and what follows from its result.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::ForkResult;

use super::Arbiter;
use super::generation::{Generation, Stage};
use super::probe::{HEALTHY, HealthCheck, ProbeSocket, run_check};
use crate::clock;
use crate::exit_status::EX_CONFIG;
use crate::message::{Channel, Received, Refusal};
use crate::process::{self, End};

impl Arbiter {
    /// Returns whether a generation whose workers serve may take over; starts a check if that is not known.
    pub(super) fn is_healthy(&mut self, id: u32) -> bool {
        let now_ns = clock::now_ns();
        let Some(generation) = self.generations.by_id_mut(id) else { return false };
        let limit_ns = clock::duration_ns(generation.settings.health_timeout);
        let health = &mut generation.health;
        if health.socket.is_none() {
            return true;
        }
        if health.deadline_ns == 0 {
            health.deadline_ns = now_ns + limit_ns;
        }
        if health.running.is_none() && now_ns >= health.check_at_ns {
            self.start_health_check(id);
        }
        false
    }

    /// Handles the exit of the process that ran the check of the generation at `index`.
    pub(super) fn on_health_check_end(&mut self, index: usize, end: End) {
        let Generation { id, settings, health, stage, .. } = &mut self.generations[index];
        let Some(check) = health.running.take() else { return };
        let result = match check.result.receive::<String>() {
            Ok(Received::Message(result, sender)) if sender == check.pid => result,
            _ if end.is_by(Signal::SIGALRM) => {
                let last_result = health.last_result.take();
                last_result.unwrap_or_else(|| "no response in time".to_owned())
            }
            _ => format!("the process that ran the check {}", end.describe()),
        };
        let path = settings.health_path.as_deref().unwrap_or_default();
        if result == HEALTHY {
            tracing::info!("generation {id} is healthy: {path} returned 200");
            health.close();
        } else if clock::now_ns() < health.deadline_ns {
            tracing::debug!("generation {id} is not healthy yet: {path}: {result}");
            health.last_result = Some(result);
            health.check_at_ns = clock::now_ns() + PAUSE_NS;
        } else if *stage == Stage::Booting {
            let reason = format!("health check of {path} failed: {result}");
            self.refuse(index, &Refusal::new(reason, EX_CONFIG));
        }
    }

    fn start_health_check(&mut self, id: u32) {
        let mut keep = self.common_descriptors();
        let Some(generation) = self.generations.by_id_mut(id) else { return };
        let Some(path) = generation.health.socket.as_ref().map(ProbeSocket::path) else { return };
        keep.extend(generation.health.path_descriptor());
        let started = Channel::pair().and_then(|pair| {
            let fork = process::fork_with_signals_blocked()?;
            Ok((pair, fork))
        });
        match started {
            Ok(((_, far), ForkResult::Child)) => run_check(&generation.settings, &path, keep, &far),
            Ok(((near, _), ForkResult::Parent { child })) => {
                generation.health.running = Some(HealthCheck { pid: child, result: near });
            }
            Err(error) => self.on_health_check_not_started(id, error),
        }
    }

    /// Handles a failure to create the process or the descriptors for a check.
    fn on_health_check_not_started(&mut self, id: u32, error: Errno) {
        let now_ns = clock::now_ns();
        let Some(index) = self.generations.index_of(id) else { return };
        let generation = &mut self.generations[index];
        tracing::error!("cannot start the health check: {error}");
        generation.health.check_at_ns = now_ns + PAUSE_NS;
        if now_ns >= generation.health.deadline_ns && generation.stage == Stage::Booting {
            let reason = format!("cannot start the health check: {error}");
            self.refuse(index, &Refusal::new(reason, EX_CONFIG));
        }
    }
}

/// Pause between two checks.
const PAUSE_NS: u64 = 250_000_000;

//! Requests on the control socket, and their responses.

use super::Arbiter;
use super::canary::RetiredGeneration;
use super::generation::{Generation, Stage};
use super::handles::{WorkerHandle, WorkerStage};
use super::reload::ReloadRequest;
use super::stop::Phase;
use crate::clock;
use crate::control::{
    ClientId, GenerationStatus, MoldStatus, Request, Response, Status, WorkerStatus,
};
use crate::process::{self, memory_kib};
use crate::scoreboard::{Scoreboard, WorkerState};
use crate::settings::WORKERS_MAX;

impl Arbiter {
    /// Reads the requests of a client that is readable, and responds to those that are complete at once.
    pub(super) fn read_client(&mut self, client: ClientId) {
        for request in self.control.hear(client) {
            if let Some(response) = self.on_request(client, request) {
                self.control.answer(client, &response);
            }
        }
    }

    /// Returns the response, unless it is sent later.
    fn on_request(&mut self, client: ClientId, request: Request) -> Option<Response> {
        match request {
            Request::Status => return Some(Response::status(self.status())),
            Request::Reload { canary: Some(canary), .. }
                if !(1..=WORKERS_MAX).contains(&canary) =>
            {
                return Some(Response::refused(format!(
                    "a canary needs between 1 and {WORKERS_MAX} workers"
                )));
            }
            Request::Reload { worker_class, canary } => {
                self.reload(ReloadRequest {
                    worker_class,
                    share: canary,
                    settings: None,
                    waiting: vec![client],
                });
                return None;
            }
            Request::Promote => return self.promote_trial(client),
            Request::Rollback { generation } => return self.roll_back(generation, client),
            Request::KillWorker { pid } => return Some(self.kill_worker(pid)),
            Request::Config => return Some(self.config()),
            Request::Scale { workers } if !(1..=WORKERS_MAX).contains(&workers) => {
                return Some(Response::refused(format!(
                    "the number of workers must be between 1 and {WORKERS_MAX}"
                )));
            }
            Request::Scale { workers } => {
                tracing::info!("scaling to {workers} workers");
                self.change_target(|_| workers);
            }
            Request::Stop => self.begin_stop(),
            Request::Quit => self.stop_quickly(0),
            Request::Reopen => self.reopen_logs(),
        }
        Some(Response::done())
    }

    /// Drains a worker, which is then replaced.
    fn kill_worker(&mut self, pid: u32) -> Response {
        let found = process::pid(pid).and_then(|pid| self.generations.find_worker(pid));
        let Some((index, position)) = found else {
            return Response::refused(format!("process {pid} is not a worker"));
        };
        tracing::info!("stopping worker (pid: {pid}) on request");
        let generation = &mut self.generations[index];
        generation.drain(generation.workers[position].age);
        Response::done()
    }

    /// Returns the settings of the serving generation in the format of `--print-config`.
    fn config(&self) -> Response {
        let serving = self.generations.in_stage(Stage::Serving);
        match serving.map(|generation| generation.settings.to_toml()) {
            Some(config) => Response { ok: true, config: Some(config), ..Response::default() },
            None => Response::refused("no generation is serving yet"),
        }
    }

    fn status(&self) -> Status {
        let pid = std::process::id();
        let state = match self.phase {
            Phase::Running if !self.has_been_ready => "starting",
            Phase::Running => "running",
            Phase::Delaying { .. } | Phase::Stopping { .. } => "stopping",
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid,
            state: state.to_owned(),
            memory_kib: memory_kib(pid),
            listeners: self.generations.listeners().iter().map(ToString::to_string).collect(),
            generations: self
                .generations
                .iter()
                .map(|generation| generation.status(&self.scoreboard))
                .collect(),
            past: self.past.iter().map(RetiredGeneration::status).collect(),
        }
    }
}

impl Generation {
    fn status(&self, scoreboard: &Scoreboard) -> GenerationStatus {
        let now_ns = clock::now_ns();
        let loaded = self.loaded.as_ref();
        let class = loaded.map(|loaded| loaded.class.as_str());
        let mut workers: Vec<WorkerStatus> = self
            .workers
            .iter()
            .filter_map(|worker| worker.status(class, scoreboard, now_ns))
            .collect();
        workers.sort_by_key(|worker| worker.age);
        GenerationStatus {
            id: self.id,
            state: self.stage.name().to_owned(),
            class: loaded.map(|loaded| format!("{} {}", loaded.class, loaded.class_version)),
            app: loaded.map(|loaded| loaded.app.clone()),
            worker_api: loaded.map(|loaded| loaded.worker_api.clone()),
            libraries: loaded.map(|loaded| loaded.libraries.clone()).unwrap_or_default(),
            target: self.target,
            age: clock::between(self.started_ns, now_ns).as_secs(),
            mold: self.mold.as_ref().map(|mold| MoldStatus {
                pid: process::number(mold.pid),
                state: mold.stage.name().to_owned(),
                memory_kib: memory_kib(process::number(mold.pid)),
            }),
            workers,
        }
    }
}

impl WorkerHandle {
    /// Returns the state of the worker. The worker's own state counts only for what the arbiter cannot know.
    fn state_name(&self, own: WorkerState) -> &'static str {
        match (self.stage, own) {
            (WorkerStage::Booting, _) => WorkerState::Booting.name(),
            (WorkerStage::Draining, _) => WorkerState::Draining.name(),
            (WorkerStage::Ready, WorkerState::Draining | WorkerState::Dead) => own.name(),
            (WorkerStage::Ready, _) => WorkerState::Ready.name(),
        }
    }

    fn status(
        &self,
        class: Option<&str>,
        scoreboard: &Scoreboard,
        now_ns: u64,
    ) -> Option<WorkerStatus> {
        let slot = scoreboard.reader(self.slot)?;
        let figures = slot.snapshot();
        Some(WorkerStatus {
            pid: figures.pid,
            age: self.age,
            class: class.map(str::to_owned),
            state: self.state_name(figures.state).to_owned(),
            busy: figures.held,
            in_flight: slot.in_flight().into_iter().map(|request| request.text).collect(),
            requests: figures.totals.requests,
            accepted: figures.totals.accepted,
            upgraded: figures.upgraded,
            messages_received: figures.totals.messages_received,
            messages_sent: figures.totals.messages_sent,
            uptime: clock::between(self.forked_ns, now_ns).as_secs(),
            silent_ms: clock::between(figures.heartbeat_ns, now_ns).as_millis() as u64,
            memory_kib: memory_kib(figures.pid).filter(|_| figures.pid != 0),
        })
    }
}

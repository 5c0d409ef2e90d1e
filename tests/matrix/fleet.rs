//! Three hosts behind a proxy that is configured by a recipe of `docs/deploy`: rolling upgrades, a host that is killed, one
//! that is cut off, and one that drains. Under a constant load of GET requests, which HTTP lets a proxy retry (RFC 9110,
//! section 9.2.2), none is lost.

use std::time::Duration;

use jimu_tests::{
    behaviour,
    cell::Cell,
    fleet::{HOSTS, Haproxy, Machine, Network, Nginx, Origin, Recipe, Release, State},
    http::Connection,
    load::{self, Load, Plan},
    runner::Behaviour,
    wait,
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    let with_haproxy = [
        behaviour!(rolling_upgrades_of_a_fleet_behind_haproxy_lose_nothing),
        behaviour!(a_fleet_behind_haproxy_loses_a_host_and_no_request),
        behaviour!(a_fleet_behind_haproxy_has_a_host_cut_off_and_loses_no_request),
        behaviour!(an_agent_check_drains_a_host_of_a_fleet),
        behaviour!(a_health_check_drains_a_host_of_a_fleet),
        behaviour!(haproxy_retries_in_a_fleet_only_what_http_allows),
    ]
    .map(|behaviour| behaviour.only_if(has_haproxy, "no haproxy, no iproute2, or not root"));
    let with_nginx = [
        behaviour!(rolling_upgrades_of_a_fleet_behind_nginx_lose_nothing),
        behaviour!(a_fleet_behind_nginx_loses_a_host_and_no_request),
        behaviour!(a_fleet_behind_nginx_has_a_host_cut_off_and_loses_no_request),
        behaviour!(a_host_of_a_fleet_behind_nginx_is_taken_out),
        behaviour!(nginx_retries_in_a_fleet_only_what_http_allows),
    ]
    .map(|behaviour| behaviour.only_if(has_nginx, "no nginx, no iproute2, or not root"));
    let all = with_haproxy.into_iter().chain(with_nginx);
    all.map(|behaviour| behaviour.of_host().busy().within(120)).collect()
}

/// The constant load.
const PLAN: Plan =
    Plan { clients: 8, keep: true, think: Duration::from_millis(5), ask: |_| load::get("/") };
/// How long clients wait for a response: twice as long as a proxy takes to find a host that has vanished.
const PATIENCE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(20);

fn rolling_upgrades_of_a_fleet_behind_haproxy_lose_nothing(_: &Cell) {
    let (haproxy, fleet) = behind_haproxy();
    roll_through(&fleet);
    assert_eq!(haproxy.deaths(), 0, "no upgrade takes a host out of service");
}

/// Upgrades the executable, the application and the worker class of each host after the other.
fn roll_through(fleet: &Fleet) {
    let load = fleet.load();
    fleet.every_response(|origin| origin.has_program(Release::First));
    fleet.every_response(|origin| origin.has_app(Release::First) && origin.has_class("gthread"));

    fleet.roll(&load, |machine| machine.upgrade_program(Release::Second));
    fleet.every_response(|origin| origin.has_program(Release::Second));
    fleet.every_response(|origin| origin.has_app(Release::First) && origin.has_class("gthread"));

    fleet.roll(&load, |machine| machine.upgrade_application(Release::Second));
    fleet.every_response(|origin| origin.has_app(Release::Second));

    fleet.roll(&load, |machine| machine.swap_class("gevent"));
    fleet.every_response(|origin| origin.has_class("gevent") && origin.has_app(Release::Second));
    load.finish().assert_nothing_lost();
}

fn a_fleet_behind_haproxy_loses_a_host_and_no_request(_: &Cell) {
    let (haproxy, mut fleet) = behind_haproxy();
    let (load, slow, host) = fleet.load_with_slow_request();
    fleet.machines[host].kill();
    fleet.serves_posts();
    is_served_elsewhere(slow);
    haproxy.until(host, State::Down);
    sends_nothing_to(&haproxy, host, &load);
    fleet.machines[host].restart();
    haproxy.until(host, State::Up);
    fleet.sends_to(host);
    load.finish().assert_nothing_lost();
}

fn a_fleet_behind_haproxy_has_a_host_cut_off_and_loses_no_request(_: &Cell) {
    let (haproxy, fleet) = behind_haproxy();
    let (load, slow, host) = fleet.load_with_slow_request();
    fleet.network.cut(host);
    haproxy.until(host, State::Down);
    sends_nothing_to(&haproxy, host, &load);
    is_served_elsewhere(slow);
    fleet.network.restore(host);
    haproxy.until(host, State::Up);
    fleet.sends_to(host);
    load.finish().assert_nothing_lost();
}

/// Checks that a request whose host is gone has a response from another host.
fn is_served_elsewhere(mut slow: Connection) {
    assert_eq!(slow.answer("GET").unwrap().status, 200, "another host serves it");
}

fn an_agent_check_drains_a_host_of_a_fleet(_: &Cell) {
    let (haproxy, fleet) = behind_haproxy();
    haproxy.disable_health_checks(0);
    drains(&haproxy, fleet, State::Draining);
}

fn a_health_check_drains_a_host_of_a_fleet(_: &Cell) {
    let (haproxy, fleet) = behind_haproxy();
    haproxy.disable_agent_checks(0);
    drains(&haproxy, fleet, State::Down);
}

/// Stops a host, which serves during its `drain_delay` until HAProxy has noticed, and starts it again.
fn drains(haproxy: &Haproxy, mut fleet: Fleet, state: State) {
    let load = fleet.load();
    load.flows(100, SOON);
    fleet.machines[0].server().signal(Signal::SIGTERM);
    haproxy.until(0, state);
    assert!(!fleet.machines[0].server().workers().is_empty(), "it serves until HAProxy knows");
    sends_nothing_to(haproxy, 0, &load);
    assert!(fleet.machines[0].server().all_gone(SOON));
    fleet.machines[0].restart();
    haproxy.until(0, State::Up);
    fleet.sends_to(0);
    load.finish().assert_nothing_lost();
}

fn haproxy_retries_in_a_fleet_only_what_http_allows(_: &Cell) {
    let (_haproxy, fleet) = behind_haproxy();
    // `retries` of the recipe, after the first attempt.
    fleet.sends_a_post_once_and_a_get(1 + 3);
}

/// Checks that HAProxy sends no more requests to a host while others serve.
fn sends_nothing_to(haproxy: &Haproxy, host: usize, load: &Load) {
    // What was begun before is done.
    load.flows(50, SOON);
    let before = haproxy.requests(host);
    load.flows(200, SOON);
    assert_eq!(haproxy.requests(host), before, "requests for a host that is out of service");
}

fn rolling_upgrades_of_a_fleet_behind_nginx_lose_nothing(_: &Cell) {
    let (_nginx, fleet) = behind_nginx();
    roll_through(&fleet);
}

fn a_fleet_behind_nginx_loses_a_host_and_no_request(_: &Cell) {
    let (_nginx, mut fleet) = behind_nginx();
    let (load, slow, host) = fleet.load_with_slow_request();
    fleet.machines[host].kill();
    fleet.serves_posts();
    is_served_elsewhere(slow);
    load.flows(200, SOON);
    fleet.machines[host].restart();
    fleet.sends_to(host);
    load.finish().assert_nothing_lost();
}

fn a_fleet_behind_nginx_has_a_host_cut_off_and_loses_no_request(_: &Cell) {
    let (_nginx, fleet) = behind_nginx();
    let (load, slow, host) = fleet.load_with_slow_request();
    fleet.network.cut(host);
    is_served_elsewhere(slow);
    load.flows(200, SOON);
    fleet.network.restore(host);
    fleet.sends_to(host);
    load.finish().assert_nothing_lost();
}

fn a_host_of_a_fleet_behind_nginx_is_taken_out(_: &Cell) {
    let (nginx, mut fleet) = behind_nginx();
    // A reload of nginx closes idle connections of clients: these open one for each request.
    let load = fleet.load_of(Plan { keep: false, ..PLAN });
    load.flows(100, SOON);
    nginx.take_out(0);
    let before = fleet.machines[0].requests();
    load.flows(200, SOON);
    assert_eq!(fleet.machines[0].requests(), before, "requests for a host that is taken out");
    fleet.machines[0].server().signal(Signal::SIGTERM);
    fleet.machines[0].restart();
    nginx.put_back();
    fleet.sends_to(0);
    load.finish().assert_nothing_lost();
}

fn nginx_retries_in_a_fleet_only_what_http_allows(_: &Cell) {
    let (_nginx, fleet) = behind_nginx();
    // `proxy_next_upstream_tries` of the recipe.
    fleet.sends_a_post_once_and_a_get(2);
}

fn has_nginx() -> bool {
    Nginx::is_present() && Network::is_possible()
}

fn behind_nginx() -> (Nginx, Fleet) {
    let recipe = Recipe::read("nginx.conf");
    let fleet = Fleet::start(&recipe);
    (Nginx::start(&fleet.network, &recipe), fleet)
}

fn has_haproxy() -> bool {
    Haproxy::is_present() && Network::is_possible()
}

fn behind_haproxy() -> (Haproxy, Fleet) {
    let recipe = Recipe::read("haproxy.cfg");
    let fleet = Fleet::start(&recipe);
    (Haproxy::start(&fleet.network, &recipe), fleet)
}

/// The hosts, which all serve.
struct Fleet {
    machines: Vec<Machine>,
    network: Network,
    _place: TempDir,
}

impl Fleet {
    fn start(recipe: &Recipe) -> Self {
        let place = TempDir::with_prefix("jimu-fleet-").unwrap();
        let (network, releases) = (Network::create(), place.path().join("releases"));
        Release::install(&releases);
        let start = |host| Machine::start(host, &network, recipe, &releases);
        Self { machines: (0..HOSTS).map(start).collect(), network, _place: place }
    }

    /// Starts clients that send GET requests to the proxy until they are stopped.
    fn load(&self) -> Load {
        self.load_of(PLAN)
    }

    fn load_of(&self, plan: Plan) -> Load {
        let network = self.network.clone();
        let connect = move || {
            let mut client = network.connect()?;
            client.patience(PATIENCE);
            Ok(client)
        };
        Load::through(connect, plan)
    }

    /// Starts the clients, and beside them a request that takes two seconds. Also returns the host that serves it.
    fn load_with_slow_request(&self) -> (Load, Connection, usize) {
        let load = self.load();
        load.flows(100, SOON);
        let (slow, host) = self.slow_request();
        (load, slow, host)
    }

    /// Changes one host after the other, while the fleet serves.
    fn roll(&self, load: &Load, change: impl Fn(&Machine)) {
        for machine in &self.machines {
            change(machine);
            load.flows(50, SOON);
        }
    }

    /// Sends some POST requests, each on a new connection: one that a host refuses was not sent, so it goes elsewhere.
    fn serves_posts(&self) {
        for _ in 0..2 * HOSTS {
            let answer = self.network.connect().unwrap().post("/echo", b"once").unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, "once"));
        }
    }

    /// Sends requests until each host has responded, and checks where every response comes from.
    fn every_response(&self, is_so: impl Fn(&Origin) -> bool) {
        let mut silent: Vec<&Machine> = self.machines.iter().collect();
        wait::until("a response of each host", SOON, || {
            let origin = Origin::of(&self.network.connect().unwrap().get("/pid").unwrap());
            assert!(is_so(&origin), "{origin:?}");
            silent.retain(|machine| !machine.has_sent(&origin));
            if silent.is_empty() { Ok(()) } else { Err(format!("{} are silent", silent.len())) }
        });
    }

    /// Waits until a host serves requests.
    fn sends_to(&self, host: usize) {
        let before = self.machines[host].requests();
        wait::until("the host serves requests again", SOON, || {
            let now = self.machines[host].requests();
            if now > before { Ok(()) } else { Err(format!("{now} as before")) }
        });
    }

    /// Sends a request that takes two seconds, and returns the host that serves it.
    fn slow_request(&self) -> (Connection, usize) {
        let mut client = self.network.connect().unwrap();
        client.send_get("/sleep?ms=2000").unwrap();
        let is_slow = |held: &String| held.contains("/sleep");
        let host = wait::until("a host that serves the request", SOON, || {
            let holds = |machine: &Machine| {
                machine.server().workers().iter().any(|worker| worker.in_flight.iter().any(is_slow))
            };
            self.machines.iter().position(holds).ok_or("none")
        });
        (client, host)
    }

    /// Checks that a POST that ends its worker is not sent to a second one, and how often a GET is sent.
    fn sends_a_post_once_and_a_get(&self, attempts: usize) {
        let connect = || self.network.connect().unwrap();
        assert_eq!(connect().post("/abort", b"once").unwrap().status, 502);
        self.have_lost_workers(1);
        assert_eq!(connect().get("/abort").unwrap().status, 502);
        self.have_lost_workers(1 + attempts);
    }

    /// Waits until this number of workers has died, and checks that no more have.
    fn have_lost_workers(&self, count: usize) {
        let deaths = || -> usize {
            self.machines.iter().map(|machine| machine.server().log.count("SIGABRT")).sum()
        };
        wait::until("the deaths of workers", SOON, || {
            let found = deaths();
            if found >= count { Ok(()) } else { Err(found.to_string()) }
        });
        assert_eq!(deaths(), count);
    }
}

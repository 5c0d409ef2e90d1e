//! The networks of a fleet and the cables between them.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
};

use nix::unistd::geteuid;

use crate::{
    http::{Address, Connection},
    network::Namespace,
    tools::works,
};

/// Number of hosts in the recipes.
pub const HOSTS: usize = 3;
/// Names of the hosts in the recipes.
pub(super) const NAMES: [&str; HOSTS] = ["one", "two", "three"];
/// Address of the proxy for clients.
const PROXY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 80);

/// Returns the address of a host in the recipes, with the port for requests.
pub(super) fn address(host: usize) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 0, 11 + host as u8), 8000).into()
}

/// The network of the proxy and its clients, those of the hosts, and the bridge that joins them.
#[derive(Clone, Debug)]
pub struct Network {
    center: Namespace,
    hosts: Vec<Namespace>,
}

impl Network {
    /// Returns whether this machine lets a test have networks: as root, with iproute2, and if the kernel has bridges.
    pub fn is_possible() -> bool {
        geteuid().is_root() && works("ip", &["-V"]) && Self::try_create().is_ok()
    }

    /// Creates the networks and connects all hosts.
    pub fn create() -> Self {
        Self::try_create().unwrap_or_else(|error| panic!("no network for a fleet: {error}"))
    }

    fn try_create() -> io::Result<Self> {
        let center = Namespace::create()?;
        ip(&center, "link set lo up")?;
        ip(&center, "link add bridge type bridge")?;
        ip(&center, &format!("addr add {}/24 dev bridge", PROXY.ip()))?;
        ip(&center, "link set bridge up")?;
        let hosts = (0..HOSTS).map(|host| add_host(&center, host)).collect::<io::Result<_>>()?;
        Ok(Self { center, hosts })
    }

    /// Returns the network of a host.
    pub(super) fn host(&self, host: usize) -> &Namespace {
        &self.hosts[host]
    }

    /// Returns the network of the proxy.
    pub(super) fn center(&self) -> &Namespace {
        &self.center
    }

    /// Cuts a host off: what is sent to it or by it vanishes.
    pub fn cut(&self, host: usize) {
        ip(&self.center, &format!("link set port{host} down")).unwrap();
    }

    /// Connects a host again that was cut off.
    pub fn restore(&self, host: usize) {
        ip(&self.center, &format!("link set port{host} up")).unwrap();
    }

    /// Connects to the proxy. Moves this thread to the network of the proxy.
    pub fn connect(&self) -> io::Result<Connection> {
        self.center.enter()?;
        Connection::open(&Address::Tcp(PROXY))
    }
}

fn add_host(center: &Namespace, host: usize) -> io::Result<Namespace> {
    let namespace = Namespace::create()?;
    let path = namespace.path();
    ip(center, &format!("link add port{host} type veth peer name eth0 netns {path}"))?;
    ip(center, &format!("link set port{host} master bridge up"))?;
    ip(&namespace, "link set lo up")?;
    ip(&namespace, &format!("addr add {}/24 dev eth0", address(host).ip()))?;
    ip(&namespace, "link set eth0 up")?;
    Ok(namespace)
}

/// Runs `ip` of iproute2 in a network.
fn ip(namespace: &Namespace, arguments: &str) -> io::Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments.split_whitespace());
    namespace.contain(&mut command);
    let output = command.output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    let failed = || io::Error::other(format!("ip {arguments}: {}", words.trim()));
    output.status.success().then_some(()).ok_or_else(failed)
}

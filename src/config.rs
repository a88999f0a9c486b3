//! What needs a restart: addresses, the bus and its credentials, threads. Everything else is in the tables.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Where `serve` listens, and `dev`.
pub const LISTEN_SERVE: &str = "0.0.0.0:8080";
/// Where `dev` listens.
pub const LISTEN_DEV: &str = "127.0.0.1:8080";
/// Where health and metrics are.
pub const ADMIN: &str = "127.0.0.1:9090";

/// How to reach the bus, and as whom.
#[derive(Clone, Debug, Default)]
pub struct BusSettings {
    /// Servers, joined by commas; the embedded bus without them.
    pub url: Option<String>,
    /// A `.creds` file.
    pub credentials: Option<PathBuf>,
    /// Second token of our inboxes.
    pub user: String,
}

/// Addresses of an edge.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Where requests come in.
    pub listen: SocketAddr,
    /// Where health and metrics are.
    pub admin: SocketAddr,
}

/// Processors that this process may use: the cgroup's quota rounded up, or what the system says.
pub fn processors() -> usize {
    let quota = std::fs::read_to_string("/sys/fs/cgroup/cpu.max").ok().and_then(|text| {
        let (quota, period) = text.trim().split_once(' ')?;
        let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
        Some((quota / period).ceil() as usize)
    });
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    quota.map_or(all, |quota| quota.clamp(1, all))
}

/// An environment variable that is set and not empty; for settings that name one.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The name of this machine, or of the pod; empty where the system does not say.
pub fn host() -> String {
    let name = variable("HOSTNAME").or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    name.map(|name| name.trim().to_owned()).unwrap_or_default()
}

/// Files that this process may have open at once, where the system says so.
pub fn open_files_max() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// True where standard error is read by people: colours, and logs as text.
pub fn is_terminal() -> bool {
    use std::io::IsTerminal as _;
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

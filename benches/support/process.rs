//! Programs under measurement: started, watched through the scheduler's own accounting, and ended with the bench.

#![allow(dead_code, reason = "each bench uses its part")]

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A child process that ends when this value is dropped.
pub struct Program {
    child: Child,
    pub name: &'static str,
}

impl Program {
    /// Starts `program` with `arguments`; on two or more cores pinned to `core` where `taskset` is there.
    pub fn start(name: &'static str, core: usize, program: &str, arguments: &[&str]) -> Program {
        let mut command = if has_taskset() {
            let mut pinned = Command::new("taskset");
            pinned.args(["-c", &core.to_string(), program]);
            pinned
        } else {
            Command::new(program)
        };
        let child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("`{program}` does not start: {error}"));
        Program { child, name }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU time of all its threads and children so far, from the scheduler.
    pub fn cpu(&self) -> Duration {
        tree_of(self.id()).into_iter().map(cpu_of).sum()
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: u64 =
            line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0);
        kilobytes * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // nginx' workers follow their master only when it is asked to end, not when it is killed.
        let _ = Command::new("kill").arg(self.id().to_string()).status();
        for _ in 0..50 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program under valgrind's callgrind: every instruction that it runs in user space, to the last one.
pub struct Counted {
    program: Program,
    out: PathBuf,
}

impl Counted {
    /// Starts `program`; `None` where valgrind is not there. The profile is `folder/{name}.callgrind`.
    pub fn start(name: &'static str, folder: &Path, program: &str, arguments: &[&str]) -> Option<Counted> {
        let valgrind = on_path("valgrind")?;
        let out = folder.join(format!("{}.callgrind", name.replace(' ', "-")));
        let file = format!("--callgrind-out-file={}", out.display());
        let mut all = vec!["--tool=callgrind", "--quiet", &file, program];
        all.extend(arguments);
        Some(Counted { program: Program::start(name, 0, &valgrind.to_string_lossy(), &all), out })
    }

    /// Forgets what was counted so far.
    pub fn zero(&self) {
        self.control("--zero");
    }

    /// Instructions since [`Counted::zero`], and the profile that says where.
    pub fn dump(&self) -> (u64, PathBuf) {
        self.control("--dump");
        // Each dump is a file of its own, numbered from 1.
        let profile = PathBuf::from(format!("{}.1", self.out.display()));
        let text = fs::read_to_string(&profile).expect("callgrind writes a profile");
        let totals = text.lines().find_map(|line| line.strip_prefix("totals:").or(line.strip_prefix("summary:")));
        (totals.and_then(|count| count.trim().parse().ok()).expect("a profile ends with its totals"), profile)
    }

    fn control(&self, what: &str) {
        let told = Command::new("callgrind_control").arg(what).arg(self.program.id().to_string()).output();
        assert!(told.is_ok_and(|told| told.status.success()), "callgrind_control {what} fails");
    }
}

fn has_taskset() -> bool {
    Command::new("taskset").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

fn tree_of(root: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{root}/task/{root}/children")).unwrap_or_default();
    let mut all = vec![root];
    all.extend(children.split_whitespace().filter_map(|id| id.parse().ok()).flat_map(tree_of));
    all
}

pub fn cpu_of(process: u32) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return Duration::ZERO };
    let nanos = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    Duration::from_nanos(nanos)
}

/// Writes a gateway's tables, with the bench schema; what to start `tidegate` with, and where it then listens.
pub fn gateway_arguments(folder: &Path, nats: &str, routes: &str) -> (Vec<String>, SocketAddr) {
    let descriptors = folder.join("descriptors");
    fs::create_dir_all(&descriptors).expect("a folder");
    fs::write(descriptors.join("bench.proto"), tidegate_floor::PROTO).expect("bench.proto");
    let file = folder.join("routes.yaml");
    fs::write(&file, routes).expect("routes.yaml");
    let (address, admin) = (free_address(), free_address());
    let arguments = [
        "serve",
        "--listen",
        &address.to_string(),
        "--admin",
        &admin.to_string(),
        "--nats",
        nats,
        "--routes",
        &file.to_string_lossy(),
        "--descriptors",
        &descriptors.to_string_lossy(),
    ];
    (arguments.map(str::to_owned).to_vec(), address)
}

/// Moves a process and what it starts from now on to one core, where `taskset` is there.
pub fn pin(process: u32, core: usize) {
    let _ = Command::new("taskset").args(["-a", "-cp", &core.to_string(), &process.to_string()]).output();
}

/// Lets this process, and what it starts from now on, open as many files as it may; how many that is.
pub fn raise_open_files() -> usize {
    let limits = || {
        let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let row = text.lines().find_map(|line| line.strip_prefix("Max open files").map(str::to_owned));
        let mut words = row.unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>().into_iter();
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    };
    let (_, most) = limits();
    let _ = Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string(), &format!("--nofile={most}:{most}")])
        .output();
    limits().0.parse().unwrap_or(1024)
}

/// An address on loopback that nobody listens on now.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free loopback port")
}

/// Waits until somebody accepts connections there.
pub fn wait_for(address: SocketAddr) {
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "nobody listens on {address} after 20 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The full path of a program on PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

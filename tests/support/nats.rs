//! A real nats-server on a free port of loopback, ended with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tidegate::bus::{Bus, Headers, NatsOptions, Request, Status, Subject};

/// A server with a folder of its own.
pub struct NatsServer {
    child: Option<Child>,
    port: u16,
    url: String,
    monitoring: String,
    routes: String,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
}

/// The server's program; fetched once where it is missing.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os("TIDEGATE_TEST_NATS_SERVER") {
            return path.into();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let status =
            Command::new("sh").arg(root.join("tests/support/fetch-nats-server.sh")).stdout(Stdio::null()).status();
        assert!(status.is_ok_and(|status| status.success()), "no nats-server: see tests/support/fetch-nats-server.sh");
        root.join("target/tools/nats-server")
    })
}

impl NatsServer {
    /// Starts a server and waits until it takes connections.
    pub fn start() -> NatsServer {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("js").to_str().unwrap().to_owned();
        NatsServer::start_in(folder, vec!["-js".to_owned(), "-sd".to_owned(), store])
    }

    /// Starts a server without JetStream, with further arguments.
    pub fn start_with(arguments: &[&str]) -> NatsServer {
        let arguments = arguments.iter().map(|argument| argument.to_string()).collect();
        NatsServer::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// Starts servers that know each other.
    pub fn cluster<const COUNT: usize>() -> [NatsServer; COUNT] {
        let mut first = String::new();
        std::array::from_fn(|_| {
            let mut arguments = vec!["--cluster_name", "test", "--cluster", "nats://127.0.0.1:-1"];
            if !first.is_empty() {
                arguments.extend(["--routes", &first]);
            }
            let server = NatsServer::start_with(&arguments);
            if first.is_empty() {
                first.clone_from(&server.routes);
            }
            server
        })
    }

    /// Starts servers with JetStream that know each other, and waits until they have a leader.
    pub async fn jetstream_cluster<const COUNT: usize>() -> [NatsServer; COUNT] {
        let start = Instant::now();
        let servers = loop {
            match NatsServer::known_to_each_other() {
                Some(servers) => break servers,
                None => assert!(start.elapsed() < super::PATIENCE, "no free ports for a cluster"),
            }
        };
        super::eventually("the cluster has a leader and all its servers", async || {
            let answer = servers[0].monitored("/jsz").await.unwrap();
            let meta = &answer["meta_cluster"];
            meta["leader"].is_string() && meta["cluster_size"] == COUNT
        })
        .await;
        servers
    }

    /// Nothing where somebody took one of the ports that were just free.
    fn known_to_each_other<const COUNT: usize>() -> Option<[NatsServer; COUNT]> {
        // JetStream wants to know the others' addresses before anybody has started.
        let free: [_; COUNT] = std::array::from_fn(|_| std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let ports = free.map(|listener| listener.local_addr().unwrap().port());
        let routes = ports.map(|port| format!("nats://127.0.0.1:{port}")).join(",");
        let mut index = 0;
        let servers = ports.map(|port| {
            index += 1;
            let folder = tempfile::tempdir().unwrap();
            let store = folder.path().join("js").to_str().unwrap().to_owned();
            let (name, cluster) = (format!("node{index}"), format!("nats://127.0.0.1:{port}"));
            let arguments = ["-js", "-sd", &store, "-n", &name, "--cluster_name", "test", "--cluster", &cluster];
            let arguments = arguments.into_iter().chain(["--routes", &routes]).map(str::to_owned).collect();
            NatsServer::try_start_in(folder, arguments)
        });
        servers.into_iter().collect::<Option<Vec<_>>>()?.try_into().ok()
    }

    fn start_in(folder: tempfile::TempDir, arguments: Vec<String>) -> NatsServer {
        NatsServer::try_start_in(folder, arguments).expect("nats-server ends at once")
    }

    fn try_start_in(folder: tempfile::TempDir, arguments: Vec<String>) -> Option<NatsServer> {
        let (url, monitoring, routes) = Default::default();
        let mut server = NatsServer { child: None, port: 0, url, monitoring, routes, arguments, folder };
        server.launch("-1").then_some(server)
    }

    /// False where the server ends by itself, as it does where somebody has its port.
    fn launch(&mut self, port: &str) -> bool {
        let folder = self.folder.path();
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().extension().is_some_and(|end| end == "ports") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        let child = Command::new(program())
            .args(["-a", "127.0.0.1", "-p", port, "-m", "-1"])
            .args(&self.arguments)
            .arg("--ports_file_dir")
            .arg(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let start = Instant::now();
        // The server writes the file once it listens.
        while self.read_ports().is_none() {
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                self.child = None;
                return false;
            }
            assert!(start.elapsed() < super::PATIENCE, "nats-server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    fn read_ports(&mut self) -> Option<()> {
        let mut files = std::fs::read_dir(self.folder.path()).ok()?.flatten();
        let file = files.find(|entry| entry.path().extension().is_some_and(|end| end == "ports"))?;
        let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok()?;
        self.url = ports["nats"][0].as_str()?.to_owned();
        self.monitoring = ports["monitoring"][0].as_str()?.to_owned();
        self.routes = ports["cluster"][0].as_str().unwrap_or_default().to_owned();
        self.port = self.url.rsplit(':').next()?.parse().ok()?;
        Some(())
    }

    /// `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Connections that it holds now.
    pub async fn connections(&self) -> u64 {
        self.monitored("/connz").await.unwrap()["num_connections"].as_u64().unwrap()
    }

    /// Its name, where it was given one.
    pub fn name(&self) -> Option<&String> {
        let at = self.arguments.iter().position(|argument| argument == "-n")?;
        self.arguments.get(at + 1)
    }

    /// What its monitoring says.
    pub async fn monitored(&self, path: &str) -> Option<serde_json::Value> {
        let answer = reqwest::get(format!("{}{path}", self.monitoring)).await.ok()?;
        serde_json::from_str(&answer.text().await.ok()?).ok()
    }

    /// The name of the node that leads a stream, as this one knows it.
    pub async fn leader(&self, stream: &str) -> Option<String> {
        let answer = self.monitored("/jsz?streams=true").await?;
        let streams = answer["account_details"][0]["stream_detail"].as_array()?;
        let found = streams.iter().find(|row| row["name"] == stream)?;
        Some(found["cluster"]["leader"].as_str()?.to_owned())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts again on the same port, with the same store.
    pub fn restart(&mut self) {
        self.kill();
        let (port, start) = (self.port.to_string(), Instant::now());
        while !self.launch(&port) {
            assert!(start.elapsed() < super::PATIENCE, "somebody has port {port}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends a signal such as `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// A bus that may still be connecting.
    pub async fn bus_not_waiting(&self) -> Bus {
        let options = NatsOptions { url: self.url.clone(), name: "test".to_owned(), ..NatsOptions::default() };
        Bus::nats(options).await.unwrap()
    }

    /// A bus whose requests have a lane of their own, as a gateway's; the lane is there.
    pub async fn lane_bus(&self) -> Bus {
        self.lane_bus_through(&self.url).await
    }

    /// The same over another address of the server.
    pub async fn lane_bus_through(&self, url: &str) -> Bus {
        let (url, name) = (url.to_owned(), "test".to_owned());
        let bus = Bus::nats(NatsOptions { url, name, request_lane: true, ..NatsOptions::default() }).await.unwrap();
        super::eventually("the request lane is there", async || {
            let _ = bus.request(to_nobody()).await;
            bus.figures().on_lane > 0
        })
        .await;
        bus
    }

    /// A connected bus.
    pub async fn bus(&self) -> Bus {
        let bus = self.bus_not_waiting().await;
        let mut status = bus.status();
        tokio::time::timeout(super::PATIENCE, status.wait_for(|status| *status == Status::Connected))
            .await
            .expect("connected in time")
            .unwrap();
        bus
    }
}

fn to_nobody() -> Request<'static> {
    let (subject, headers, payload) = (Subject::new("nobody").unwrap(), Headers::new(), Default::default());
    Request { subject, headers, payload, timeout: super::PATIENCE, proof: None }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            let _ = Command::new("kill").args(["-CONT", &child.id().to_string()]).status();
        }
        self.kill();
    }
}

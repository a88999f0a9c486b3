//! A real redis-server or valkey-server on a free port, ended with the test.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// A running server without anything in it.
pub struct RedisServer {
    child: Option<Child>,
    port: u16,
    folder: tempfile::TempDir,
}

fn program() -> String {
    let named = std::env::var("TIDEGATE_TEST_REDIS_SERVER").into_iter();
    let fetched = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/valkey-server");
    let mut programs = named.chain([fetched, "redis-server", "valkey-server"].map(str::to_owned));
    let works = |program: &String| Command::new(program).arg("--version").output().is_ok();
    programs.find(works).expect("no redis-server: run `make tools`, or set TIDEGATE_TEST_REDIS_SERVER to its path")
}

impl RedisServer {
    pub fn start() -> RedisServer {
        let folder = tempfile::tempdir().unwrap();
        let mut server = RedisServer { child: None, port: 0, folder };
        // Between our look and the server's start somebody else may take the port.
        while server.child.is_none() {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            server.launch();
        }
        server
    }

    fn launch(&mut self) {
        let mut child = Command::new(program())
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        loop {
            if child.try_wait().unwrap().is_some() {
                return;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                break;
            }
            assert!(start.elapsed() < super::PATIENCE, "redis-server does not listen");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        self.child = Some(child);
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// What the server answers to a command, as it stands on the wire, without the last line's end.
    pub fn say(&self, command: &str) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer.strip_suffix("\r\n+OK\r\n").unwrap().to_owned()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts again on the same port, with nothing in it.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
        assert!(self.child.is_some(), "redis-server does not start again");
    }

    /// Sends a signal such as `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

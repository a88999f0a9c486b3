//! The program as a process of its own, ended with the test.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

/// A running program, and where it listens.
pub struct Program {
    child: Child,
    /// Where requests come in.
    pub address: String,
    /// Where health and metrics are.
    pub admin: String,
    /// What it has logged since it was up.
    logged: Arc<Mutex<Vec<String>>>,
}

impl Program {
    /// Starts a gateway on free ports, and waits until it is there.
    pub fn start(arguments: &[&str]) -> Program {
        Program::start_command(Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments))
    }

    /// Starts a gateway, or a worker, in a folder, and waits until it is there.
    pub fn start_in(folder: &Path, arguments: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(arguments).current_dir(folder);
        match arguments.first() {
            Some(&"worker") => Program::launch(&mut command, "worker ready").0,
            _ => Program::start_command(&mut command),
        }
    }

    /// As [`Program::start`], with environment variables.
    pub fn start_with(variables: &[(&str, &str)], arguments: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        Program::start_command(command.args(arguments).envs(variables.iter().copied()))
    }

    /// Services as a process of their own, with environment variables; waits until they are there.
    pub fn worker(variables: &[(&str, &str)], arguments: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("worker").args(arguments).envs(variables.iter().copied());
        Program::launch(&mut command, "worker ready").0
    }

    /// As [`Program::start`], with a limit on open files.
    pub fn start_with_files(files: u32, arguments: &[&str]) -> Program {
        let script = format!("ulimit -n {files} && exec \"$@\"");
        let program = env!("CARGO_BIN_EXE_tidegate");
        Program::start_command(Command::new("sh").args(["-c", &script, "sh", program]).args(arguments))
    }

    /// Starts workers, all at once, and waits until each of them is ready.
    pub fn start_workers(commands: &[Vec<&str>]) -> Vec<Program> {
        let start = |arguments: &Vec<&str>| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
            Program::of(command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
        };
        let mut programs: Vec<Program> = commands.iter().map(start).collect();
        for (program, arguments) in programs.iter_mut().zip(commands) {
            let mut lines = BufReader::new(program.child.stderr.take().unwrap()).lines().map_while(Result::ok);
            let mut said = Vec::new();
            let is_ready = lines.by_ref().any(|line| {
                let is_ready = line.contains("\"worker ready\"");
                said.push(line);
                is_ready
            });
            assert!(is_ready, "{arguments:?} did not start:\n{}", said.join("\n"));
            std::thread::spawn(move || lines.for_each(drop));
        }
        programs
    }

    fn start_command(command: &mut Command) -> Program {
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        let (mut program, ready) = Program::launch(command, "gateway ready");
        program.address = ready["fields"]["listen"].as_str().unwrap().to_owned();
        let admin = ready["fields"]["admin"].as_str().unwrap();
        program.admin = admin.trim_start_matches("Some(").trim_end_matches(')').to_owned();
        program
    }

    /// Starts a process, and waits until it has logged a message.
    fn launch(command: &mut Command, message: &str) -> (Program, serde_json::Value) {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let parsed = |line: String| serde_json::from_str::<serde_json::Value>(&line).unwrap_or_default();
        let ready = lines.by_ref().map(parsed).find(|log| log["fields"]["message"] == message);
        let ready = ready.unwrap_or_else(|| panic!("the program ended before `{message}`"));
        let logged: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = logged.clone();
        std::thread::spawn(move || lines.for_each(|line| log.lock().unwrap().push(line)));
        (Program { child, address: String::new(), admin: String::new(), logged }, ready)
    }

    /// True where it has logged that text since it was up.
    pub fn has_logged(&self, text: &str) -> bool {
        self.logged.lock().unwrap().iter().any(|line| line.contains(text))
    }

    /// Any other process, to be ended with the test.
    pub fn of(child: Child) -> Program {
        Program { child, address: String::new(), admin: String::new(), logged: Arc::default() }
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Tells it to end, and waits for that.
    pub fn end(mut self) {
        self.signal("TERM");
        assert!(self.child.wait().unwrap().success());
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, once it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Processor time that it has used, in ticks of 10 ms.
    pub fn ticks(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Open files that count against a limit: an inherited one may have a number above it.
    pub fn open_files_below(&self, limit: u32) -> usize {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().flatten();
        files.filter_map(|file| file.file_name().to_str()?.parse::<u32>().ok()).filter(|number| *number < limit).count()
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let answer = reqwest::get(format!("http://{}{path}", self.address)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    pub async fn post(&self, path: &str, body: &str) -> (u16, String) {
        let form = "application/x-www-form-urlencoded";
        let request = reqwest::Client::new().post(format!("http://{}{path}", self.address));
        let answer = request.header("content-type", form).body(body.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = Command::new("kill").arg(self.child.id().to_string()).status();
            let _ = self.child.wait();
        }
    }
}

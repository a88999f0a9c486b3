//! Tidegate as it is deployed: a gateway and two replicas of each service, processes of their own, on a NATS cluster of
//! three nodes that keep three copies of everything.

use std::process::{Command, Stdio};

use tidegate::bus::{Bus, NatsOptions, Status};

use super::eventually;
use super::nats::NatsServer;
use super::program::Program;

pub struct Fleet {
    pub nodes: [NatsServer; 3],
    pub gateway: Program,
    workers: Vec<Program>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Dozens of processes that say goodbye one after the other take longer than the test.
        self.workers.iter_mut().for_each(Program::kill);
    }
}

impl Fleet {
    /// Each group of services is run by two processes.
    pub async fn start(groups: &[&[&str]]) -> Fleet {
        let nodes = NatsServer::jetstream_cluster::<3>().await;
        let urls = urls(&nodes);
        // A node that has just started may not be known as a place for copies yet.
        eventually("streams and buckets are made", async || {
            let mut apply = Command::new(env!("CARGO_BIN_EXE_tidegate"));
            apply.args(["streams", "apply", "--nats", &urls]).stdout(Stdio::null()).stderr(Stdio::null());
            tokio::process::Command::from(apply).status().await.unwrap().success()
        })
        .await;
        let common = ["worker", "--provision", "never", "--nats", &*urls];
        let commands: Vec<Vec<&str>> = groups.iter().chain(groups).map(|group| [&common, *group].concat()).collect();
        let workers = Program::start_workers(&commands);
        let gateway = Program::start(&["serve", "--nats", &urls]);
        Fleet { nodes, gateway, workers }
    }

    /// A connection to whichever node is there.
    pub async fn bus(&self) -> Bus {
        let bus = Bus::nats(NatsOptions { url: urls(&self.nodes), ..NatsOptions::default() }).await.unwrap();
        eventually("connected", async || *bus.status().borrow() == Status::Connected).await;
        bus
    }

    /// The node that leads a stream.
    pub async fn leader(&self, stream: &str) -> usize {
        let mut leader = None;
        eventually("the stream has a leader", async || {
            for node in &self.nodes {
                if let Some(name) = node.leader(stream).await {
                    leader = self.nodes.iter().position(|node| node.name() == Some(&name));
                }
            }
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }
}

fn urls(nodes: &[NatsServer]) -> String {
    nodes.iter().map(NatsServer::url).collect::<Vec<_>>().join(",")
}

//! Threads that serve connections beside the first one, each with a runtime and a bus of its own.

use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::runtime;
use crate::bus::Bus;
use crate::fault::{Code, Fault};
use crate::gateway::EdgeThread;

/// Threads where nobody said how many: one a processor that this process may use, but one where there are two, because
/// the kernel and the bus need the other.
pub(super) fn usual() -> usize {
    match std::thread::available_parallelism() {
        Ok(processors) if processors.get() > 2 => processors.get(),
        _ => 1,
    }
}

/// Running threads. They outlive the edge: a bus is closed before its runtime ends.
#[derive(Default)]
pub(super) struct Threads(Vec<(EdgeThread, oneshot::Sender<()>, JoinHandle<()>)>);

impl Threads {
    /// Starts that many, numbered from 2; `connect` makes the bus of each, on its own runtime.
    pub(super) fn start<F>(count: usize, connect: impl Fn(usize) -> F) -> Result<Threads, Fault>
    where
        F: Future<Output = Result<Bus, Fault>> + Send + 'static,
    {
        let mut threads = Threads::default();
        for number in 2..count + 2 {
            let connecting = connect(number);
            let (stop, stopped) = oneshot::channel::<()>();
            let (ready, is_ready) = std::sync::mpsc::channel();
            let ours = |text: String| Fault::ours(Code::Internal, format!("thread {number} does not start: {text}"));
            let thread = std::thread::Builder::new().name(format!("edge-{number}")).spawn(move || {
                let runtime = match runtime() {
                    Ok(runtime) => runtime,
                    Err(fault) => return drop(ready.send(Err(fault))),
                };
                let bus = runtime.block_on(connecting);
                let is_connected = bus.is_ok();
                let _ = ready.send(bus.map(|bus| EdgeThread { runtime: runtime.handle().clone(), bus }));
                if is_connected {
                    let _ = runtime.block_on(stopped);
                }
            });
            let thread = thread.map_err(|error| ours(error.to_string()))?;
            let started = is_ready.recv().map_err(|_| ours("it ended".to_owned()))??;
            threads.0.push((started, stop, thread));
        }
        Ok(threads)
    }

    /// As the edge takes them.
    pub(super) fn for_edge(&self) -> Vec<EdgeThread> {
        self.0.iter().map(|(thread, ..)| thread.clone()).collect()
    }

    /// Their buses.
    pub(super) fn buses(&self) -> impl Iterator<Item = &Bus> {
        self.0.iter().map(|(thread, ..)| &thread.bus)
    }

    /// Ends them, once the edge has drained.
    pub(super) async fn stop(self) {
        for bus in self.buses() {
            bus.close().await;
        }
        for (thread, stop, running) in self.0 {
            drop(thread);
            let _ = stop.send(());
            let _ = running.join();
        }
    }
}

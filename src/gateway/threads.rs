//! The threads that serve an edge's connections. One of them accepts; each fresh socket goes to the one with the fewest
//! open connections and stays there. Listeners of their own, as SO_REUSEPORT gives them, are as uneven as their hashes
//! (up to three times the mean), and what waits in the queue of one is lost when it closes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{Edge, listener};
use crate::bus::Bus;
use crate::telemetry;

/// A thread that serves connections beside the one that accepts them.
#[derive(Clone)]
pub struct EdgeThread {
    /// Its runtime, which is driven until the edge has drained.
    pub runtime: Handle,
    /// Its connection to the bus, made on that runtime.
    pub bus: Bus,
}

impl std::fmt::Debug for EdgeThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeThread").field("runtime", &self.runtime).finish_non_exhaustive()
    }
}

/// All of them, the accepting one first.
pub(super) struct Threads(Vec<Arc<Member>>);

struct Member {
    edge: Arc<Edge>,
    /// None is the thread that accepts.
    runtime: Option<Handle>,
    connections: AtomicUsize,
}

impl Threads {
    /// The threads of an edge: each has the edge as its own, but for the bus.
    pub(super) fn of(edge: &Arc<Edge>) -> Threads {
        let member = |edge, runtime| Arc::new(Member { edge, runtime, connections: AtomicUsize::new(0) });
        let others = edge.config.threads.iter().map(|thread| {
            let own = Edge { bus: thread.bus.clone(), ..Edge::clone(edge) };
            member(Arc::new(own), Some(thread.runtime.clone()))
        });
        Threads(std::iter::once(member(edge.clone(), None)).chain(others).collect())
    }

    /// Gives a fresh connection to the thread with the fewest; closes it where the edge has as many as it may have.
    pub(super) fn take(&self, socket: TcpStream, peer: SocketAddr, stopped: &watch::Receiver<bool>) {
        let count = |member: &&Arc<Member>| member.connections.load(Ordering::Relaxed);
        let Some(member) = self.0.iter().min_by_key(count) else { return };
        let edge = &member.edge;
        let Some(open) = Open::admit(member) else {
            metrics::counter!(telemetry::CONNECTION_LIMITS, "limit" => "connections").increment(1);
            return;
        };
        let _ = socket.set_nodelay(true);
        let (edge, stopped) = (edge.clone(), stopped.clone());
        let Some(runtime) = &member.runtime else {
            tokio::spawn(async move {
                let _open = open;
                listener::serve(edge, socket, peer, stopped).await;
            });
            return;
        };
        // A socket belongs to the reactor of the runtime on which it was made.
        let Ok(socket) = socket.into_std() else { return };
        runtime.spawn(async move {
            let _open = open;
            if let Ok(socket) = TcpStream::from_std(socket) {
                listener::serve(edge, socket, peer, stopped).await;
            }
        });
    }
}

/// Counts a connection until it is gone.
struct Open(Arc<Member>);

impl Open {
    fn admit(member: &Arc<Member>) -> Option<Open> {
        let edge = &member.edge;
        if edge.connections.fetch_add(1, Ordering::AcqRel) >= edge.config.limits.connections {
            edge.connections.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        member.connections.fetch_add(1, Ordering::Relaxed);
        Some(Open(member.clone()))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.edge.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

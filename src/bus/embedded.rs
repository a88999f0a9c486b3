//! A bus inside one process: queue groups, wildcards, headers, no responders. For `dev` and for tests; nothing leaves
//! the process, and nothing survives it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use super::queue::{Engaged, Limits, Queue, Subscription};
use super::{
    BusError, Delivery, EMBEDDED_PAYLOAD_MAX, Figures, IN_FLIGHT_MAX, Message, Pattern, Reply, Request, Status,
};
use super::{Headers, Subject};

/// Where the reply subjects of requests and streams begin.
const REPLIES: &str = "_INBOX.embedded.r.";

/// The engine.
pub(super) struct EmbeddedBus {
    me: Weak<EmbeddedBus>,
    table: Mutex<Table>,
    status: watch::Sender<Status>,
    pending: AtomicU64,
    dropped: AtomicU64,
    strays: AtomicU64,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// Subscriptions to one literal subject: nearly all of them.
    literal: HashMap<String, Vec<Arc<Member>>>,
    wild: Vec<Arc<Member>>,
}

struct Member {
    id: u64,
    pattern: Pattern,
    group: Option<String>,
    queue: Arc<Queue>,
}

impl Default for EmbeddedBus {
    fn default() -> EmbeddedBus {
        EmbeddedBus {
            me: Weak::new(),
            table: Mutex::default(),
            status: watch::Sender::new(Status::Connected),
            pending: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            strays: AtomicU64::new(0),
        }
    }
}

/// Takes a subscription out of the table when dropped.
struct Leave {
    bus: Weak<EmbeddedBus>,
    member: Arc<Member>,
}

impl Engaged for Leave {
    fn drain(&mut self) {
        self.leave();
        self.member.queue.end(None);
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Leave {
    fn leave(&self) {
        let Some(bus) = self.bus.upgrade() else { return };
        let mut table = bus.lock();
        let subject = self.member.pattern.as_str();
        if let Some(members) = table.literal.get_mut(subject) {
            members.retain(|member| member.id != self.member.id);
            if members.is_empty() {
                table.literal.remove(subject);
            }
        }
        table.wild.retain(|member| member.id != self.member.id);
    }
}

impl EmbeddedBus {
    pub(super) fn shared() -> Arc<EmbeddedBus> {
        Arc::new_cyclic(|me| EmbeddedBus { me: me.clone(), ..EmbeddedBus::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(super) fn figures(&self) -> Figures {
        Figures {
            pending: self.pending.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            strays: self.strays.load(Ordering::Relaxed),
            ..Figures::default()
        }
    }

    pub(super) fn subscribe(
        &self,
        pattern: &Pattern,
        group: Option<&str>,
        limits: Limits,
    ) -> Result<Subscription, BusError> {
        if *self.status.borrow() == Status::Closed {
            return Err(BusError::Closed);
        }
        let queue = Queue::new(limits);
        let mut table = self.lock();
        table.next += 1;
        let member = Arc::new(Member {
            id: table.next,
            pattern: pattern.clone(),
            group: group.map(str::to_owned),
            queue: queue.clone(),
        });
        if pattern.as_str().contains(['*', '>']) {
            table.wild.push(member.clone());
        } else {
            table.literal.entry(pattern.as_str().to_owned()).or_default().push(member.clone());
        }
        drop(table);
        Ok(Subscription::new(queue, Leave { bus: self.me.clone(), member }))
    }

    /// Everyone who gets a message: all without a group, one of each group, by chance as a NATS server does it.
    fn listeners(&self, subject: &str) -> Vec<Arc<Member>> {
        let table = self.lock();
        let matching: Vec<Arc<Member>> = table
            .literal
            .get(subject)
            .into_iter()
            .flatten()
            .chain(table.wild.iter().filter(|member| member.pattern.matches(subject)))
            .cloned()
            .collect();
        let mut chosen = Vec::with_capacity(matching.len());
        let mut groups: Vec<&str> = Vec::new();
        for member in &matching {
            let Some(group) = member.group.as_deref() else {
                chosen.push(member.clone());
                continue;
            };
            if groups.contains(&group) {
                continue;
            }
            groups.push(group);
            let members: Vec<_> = matching.iter().filter(|other| other.group.as_deref() == Some(group)).collect();
            chosen.push(members[fastrand::usize(..members.len())].clone());
        }
        chosen
    }

    pub(super) fn publish(&self, message: Message) -> Result<(), BusError> {
        let size = message.payload.len() + message.headers.size();
        if size > EMBEDDED_PAYLOAD_MAX {
            return Err(BusError::TooLarge { size, max: EMBEDDED_PAYLOAD_MAX });
        }
        if *self.status.borrow() == Status::Closed {
            return Err(BusError::Closed);
        }
        let listeners = self.listeners(message.subject.as_str());
        if listeners.is_empty() {
            if message.subject.as_str().starts_with(REPLIES) {
                self.strays.fetch_add(1, Ordering::Relaxed);
            }
            self.tell_no_responders(message.reply);
            return Ok(());
        }
        let delivery = Delivery {
            subject: message.subject,
            reply: message.reply,
            headers: message.headers,
            payload: message.payload,
            is_no_responders: false,
        };
        for member in listeners {
            if !member.queue.push(delivery.clone()) {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// As a NATS server: a message with a reply subject that nobody takes is answered with status 503.
    fn tell_no_responders(&self, reply: Option<Subject>) {
        let Some(reply) = reply else { return };
        for member in self.listeners(reply.as_str()) {
            member.queue.push(Delivery {
                subject: reply.clone(),
                reply: None,
                headers: Headers::new(),
                payload: bytes::Bytes::new(),
                is_no_responders: true,
            });
        }
    }

    pub(super) async fn request(&self, request: Request<'_>) -> Result<Reply, BusError> {
        if self.pending.load(Ordering::Relaxed) >= IN_FLIGHT_MAX as u64 {
            return Err(BusError::Busy);
        }
        self.pending.fetch_add(1, Ordering::Relaxed);
        let _pending = Pending(&self.pending);
        let token = uuid::Uuid::new_v4().simple();
        let inbox = Subject::trusted(format!("{REPLIES}{token}"));
        let mut replies = self.subscribe(&inbox.clone().into(), None, Limits::STREAM)?;
        let message = Message {
            subject: request.subject,
            reply: Some(inbox),
            headers: request.headers,
            payload: request.payload,
        };
        self.publish(message)?;
        let mut mismatches = 0;
        let wait = async {
            loop {
                let Some(Ok(delivery)) = replies.next().await else { return Err(BusError::Closed) };
                if delivery.is_no_responders {
                    return Err(BusError::NoResponders);
                }
                let reply = Reply { headers: delivery.headers, payload: delivery.payload, mismatches };
                if request.proof.is_none_or(|proof| proof(&reply)) {
                    return Ok(reply);
                }
                mismatches += 1;
                self.strays.fetch_add(1, Ordering::Relaxed);
            }
        };
        match tokio::time::timeout(request.timeout, wait).await {
            Ok(result) => result,
            Err(_) if mismatches > 0 => Err(BusError::Unproven(mismatches)),
            Err(_) => Err(BusError::Timeout),
        }
    }

    /// What was published has been delivered already.
    pub(super) fn flush(&self) -> Result<(), BusError> {
        if *self.status.borrow() == Status::Closed { Err(BusError::Closed) } else { Ok(()) }
    }

    pub(super) fn close(&self) {
        self.status.send_replace(Status::Closed);
        let table = self.lock();
        for member in table.literal.values().flatten().chain(&table.wild) {
            member.queue.end(None);
        }
    }
}

struct Pending<'a>(&'a AtomicU64);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

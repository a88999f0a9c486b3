//! Tables from the workers themselves: a worker that announces its schema has its routes as long as one of its kind is
//! there. The other source, beneath, is asked first, and wins wherever both say something. Anybody on the bus may
//! announce anything, so a route leads only to subjects that the gateway's operator has named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::super::problem::{Place, Problem};
use super::{Changes, Material, Source};
use crate::bus::discovery::{ANNOUNCED, Answer, BYTES, DIGEST, ask, digest};
use crate::bus::{Bus, BusError, Headers, Pattern, Request, Subject};
use crate::schema::{self, SourceFile};

/// Pause between two looks at who is there, and so between two changes of the tables that workers bring about.
const LOOK: Duration = Duration::from_secs(2);
/// How long further answers are waited for.
const QUIET: Duration = Duration::from_millis(250);
/// Longest wait for answers.
const LONGEST: Duration = Duration::from_secs(2);
/// Longest wait for a part of a schema.
const PART_MAX: Duration = Duration::from_secs(2);
/// Longest wait for all of them: a worker that gives a byte at a time does not hold up the others.
const PARTS_MAX: Duration = Duration::from_secs(10);
/// Looks in a row without any of its workers after which a service has left.
const LOOKS_MISSED_MAX: u32 = 4;
/// Most bytes of a service's descriptors.
const SET_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most services.
const SERVICES_MAX: usize = 256;

/// Another source, and what the workers of a bus add to it.
pub struct WorkersSource {
    beneath: Arc<dyn Source>,
    bus: Bus,
    /// Where routes may lead.
    subjects: Vec<Pattern>,
    found: Mutex<BTreeMap<String, Found>>,
    count: watch::Sender<u64>,
}

/// What the workers of one name serve.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    /// Full names of services of the schema.
    services: Vec<String>,
    /// Full names of all services that the set declares.
    declared: Vec<String>,
    digest: String,
    set: Vec<u8>,
    /// Looks in a row in which none of them was seen.
    missed: u32,
}

/// An answer of a worker that announces its schema.
#[derive(Debug)]
struct Announced {
    name: String,
    instance: String,
    services: Vec<String>,
    digest: String,
    bytes: usize,
}

impl WorkersSource {
    /// Looks who is there until nobody holds the source any more. Services with a route to a subject that none of
    /// `subjects` takes are left out.
    pub fn follow(beneath: Arc<dyn Source>, bus: Bus, subjects: Vec<Pattern>) -> Arc<WorkersSource> {
        let (found, count) = (Mutex::default(), watch::Sender::new(0));
        let source = Arc::new(WorkersSource { beneath, bus, subjects, found, count });
        tokio::spawn(look(Arc::downgrade(&source)));
        source
    }

    fn found(&self) -> MutexGuard<'_, BTreeMap<String, Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes who was seen; what has to be fetched comes back.
    fn note(&self, seen: Vec<Announced>) -> (bool, Vec<Announced>) {
        let mut found = self.found();
        let before = found.len();
        let mut missing: BTreeMap<String, Announced> = BTreeMap::new();
        let (mut here, mut kept) = (BTreeSet::new(), BTreeSet::new());
        for worker in seen {
            here.insert(worker.name.clone());
            match found.get(&worker.name) {
                Some(known) if known.digest == worker.digest => drop(kept.insert(worker.name)),
                _ => drop(missing.entry(worker.name.clone()).or_insert(worker)),
            }
        }
        for (name, known) in found.iter_mut() {
            known.missed = if here.contains(name) { 0 } else { known.missed + 1 };
        }
        found.retain(|name, known| {
            let stays = known.missed < LOOKS_MISSED_MAX;
            if !stays {
                tracing::info!(service = name, "its last worker has left: its routes go");
            }
            stays
        });
        // While one of the schema in force is there it stays in force: in a rollout the last one that leaves decides.
        missing.retain(|name, _| !kept.contains(name));
        (found.len() != before, missing.into_values().collect())
    }

    /// What a worker says that it serves, piece by piece.
    async fn fetch(&self, worker: &Announced) -> Result<Vec<u8>, String> {
        if worker.bytes > SET_BYTES_MAX {
            return Err(format!("its descriptors have {} bytes, at most {SET_BYTES_MAX} are taken", worker.bytes));
        }
        let mut set = Vec::with_capacity(worker.bytes);
        while set.len() < worker.bytes {
            let subject = format!("$SRV.SCHEMA.{}.{}", worker.name, worker.instance);
            let subject = Subject::new(subject).map_err(|error| error.to_string())?;
            let (headers, payload) = (Headers::new(), Bytes::from(set.len().to_string()));
            let part = self.bus.request(Request { subject, headers, payload, timeout: PART_MAX, proof: None }).await;
            let part = part.map_err(|error| format!("its descriptors cannot be fetched: {error}"))?;
            if part.payload.is_empty() || set.len() + part.payload.len() > worker.bytes {
                return Err("its descriptors are not as long as it says".to_owned());
            }
            set.extend_from_slice(&part.payload);
        }
        if digest(&set) == worker.digest {
            Ok(set)
        } else {
            Err("its descriptors are not those that it announces".to_owned())
        }
    }

    /// Why tables with what workers bring are no good. Looks at the routes as they would run: which descriptor of one name
    /// is in force is known only there.
    fn build(&self, material: &Material) -> Result<(), String> {
        let snapshot = material.build(None).map_err(|problems| {
            let text = |problem: &Problem| format!("{}: {}", problem.place, problem.message);
            problems.iter().map(text).collect::<Vec<_>>().join("; ")
        })?;
        let is_barred = |subject: &str| !self.subjects.iter().any(|pattern| pattern.matches(subject));
        let mut discovered = snapshot.routes.iter().filter(|route| route.is_discovered);
        match discovered.find(|route| is_barred(route.method.subject.as_str())) {
            None => Ok(()),
            Some(route) => Err(format!(
                "`{} {}` leads to `{}`, which is none of the subjects that workers may bring routes to",
                route.verb, route.template, route.method.subject
            )),
        }
    }

    /// One look; true where something has changed.
    async fn look(&self, told: &mut BTreeSet<String>) -> Result<bool, BusError> {
        let answers = ask(&self.bus, "$SRV.INFO", QUIET, LONGEST).await?;
        let seen = answers.iter().filter_map(Answer::read).filter_map(announced);
        let (mut is_changed, missing) = self.note(seen.collect());
        for worker in missing {
            let is_known = self.found().contains_key(&worker.name);
            let fetched = match self.found().len() >= SERVICES_MAX && !is_known {
                true => Err(format!("more than {SERVICES_MAX} services announce themselves")),
                false => {
                    let fetched = tokio::time::timeout(PARTS_MAX, self.fetch(&worker)).await;
                    fetched.unwrap_or_else(|_| Err(format!("its descriptors did not come within {PARTS_MAX:?}")))
                }
            };
            match fetched {
                Ok(set) => {
                    tracing::info!(service = worker.name, instance = worker.instance, "a worker announces its schema");
                    let Announced { name, services, digest, .. } = worker;
                    let file = SourceFile { name: origin(&name), bytes: set.clone() };
                    // Reading a schema takes a while: off the runtime's thread.
                    let declared = tokio::task::spawn_blocking(move || declared(file)).await.unwrap_or_default();
                    self.found().insert(name, Found { services, declared, digest, set, missed: 0 });
                    is_changed = true;
                }
                Err(text) => {
                    // Once for each worker, whatever it says next.
                    if told.len() < SERVICES_MAX && told.insert(worker.instance.clone()) {
                        tracing::warn!(
                            service = worker.name,
                            instance = worker.instance,
                            "a worker is left out: {text}"
                        );
                    }
                }
            }
        }
        Ok(is_changed)
    }
}

impl Source for WorkersSource {
    fn read(&self) -> Result<Material, Vec<Problem>> {
        let material = self.beneath.read()?;
        let found = self.found().clone();
        if found.is_empty() {
            return Ok(material);
        }
        // Where it does not build by itself its problems are said by whoever builds it next.
        let Ok(snapshot) = material.build(None) else { return Ok(material) };
        let described: BTreeSet<&str> =
            snapshot.described.iter().filter_map(|method| method.split('/').next()).collect();
        let mut all = material.clone();
        for (name, found) in &found {
            add(&mut all, name, found, &described);
        }
        if self.build(&all).is_ok() {
            return Ok(all);
        }
        let mut good = material;
        for (name, found) in &found {
            let mut next = good.clone();
            add(&mut next, name, found, &described);
            match self.build(&next) {
                Ok(()) => good = next,
                Err(why) => {
                    let text = format!("the routes of service `{name}` are left out: {why}");
                    good.left_out.push(Problem::new(Place::new(&origin(name), 1, 1), text));
                }
            }
        }
        Ok(good)
    }

    fn changes(&self) -> Changes {
        Changes::Any(vec![self.beneath.changes(), Changes::Counted(self.count.subscribe())])
    }
}

/// Adds what a service brings. What the source beneath describes itself is its business.
fn add(material: &mut Material, name: &str, found: &Found, described: &BTreeSet<&str>) {
    let is_new = |service: &&String| !described.contains(service.as_str());
    let services: Vec<String> = found.services.iter().filter(is_new).cloned().collect();
    if !services.is_empty() {
        material.brought.extend(found.declared.iter().filter(is_new).cloned());
        material.descriptors.push(SourceFile { name: origin(name), bytes: found.set.clone() });
        material.discovered.extend(services);
    }
}

/// The services of a set; none where it is no schema, which whoever builds it says.
fn declared(set: SourceFile) -> Vec<String> {
    let schema = schema::load(&[set]).ok();
    schema.into_iter().flat_map(|schema| schema.services).map(|service| service.name).collect()
}

/// What problems call the place.
fn origin(name: &str) -> String {
    format!("worker {name}")
}

async fn look(source: Weak<WorkersSource>) {
    let mut told = BTreeSet::new();
    loop {
        let Some(source) = source.upgrade() else { return };
        // While the bus is away nobody is seen, and nobody is missed.
        if matches!(source.look(&mut told).await, Ok(true)) {
            source.count.send_modify(|count| *count += 1);
        }
        drop(source);
        tokio::time::sleep(LOOK).await;
    }
}

/// What an answer to `$SRV.INFO` announces; nothing where it announces nothing.
fn announced(answer: Answer) -> Option<Announced> {
    let services = answer.metadata.get(ANNOUNCED)?;
    Some(Announced {
        services: services.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        digest: answer.metadata.get(DIGEST)?.clone(),
        bytes: answer.metadata.get(BYTES)?.parse().ok()?,
        name: answer.name,
        instance: answer.id,
    })
}

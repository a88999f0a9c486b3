//! Idempotency keys: the first call with a key does the work, repeats get its reply.
//!
//! The replies kept here last a day; `records` keeps the last few of each record with the change itself, for the moment
//! between the two.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::{Context, Failed};
use crate::fault::{Code, Fault};
use crate::store::{Bucket, BucketConfig, Entry, Expected, Store, StoreError, key_token};
use crate::transcode::canonical;

/// How long a reply is kept.
const KEPT_MS: i64 = 24 * 3_600 * 1_000;
/// How long a call may run before another one takes its key over.
const RUNNING_MS: i64 = 60 * 1_000;
/// Longest key in bytes.
const KEY_BYTES_MAX: usize = 128;
/// Times that a key is looked at again when another call is at it.
const TRIES: usize = 3;
/// How often a store that does not answer is asked again to let go of a key: about as long as a claim lasts.
const LEAVE_TRIES: u32 = 32;
const LEAVE_PAUSE: Duration = Duration::from_millis(50);
const LEAVE_PAUSE_MAX: Duration = Duration::from_secs(2);

/// The replies kept. Cloning shares them.
#[derive(Clone)]
pub struct Repeats(Bucket);

/// What the store holds of a key.
#[derive(Serialize, Deserialize)]
struct Record {
    schema: u32,
    fingerprint: String,
    expires_at_ms: i64,
    /// What the call had prepared before it began.
    #[serde(default)]
    prepared: String,
    /// Whose claim it is; nobody else has the same.
    #[serde(default)]
    owner: String,
    /// Nothing while the call runs.
    done: Option<Done>,
}

#[derive(Serialize, Deserialize)]
struct Done {
    reply: Option<Box<RawValue>>,
    fault: Option<KeptFault>,
}

#[derive(Serialize, Deserialize)]
struct KeptFault {
    code: String,
    message: String,
    details: BTreeMap<String, String>,
}

/// What a key says about a call.
enum Standing {
    /// No call is at it; where one with the same request has died, with what that one had prepared.
    Free(Expected, Option<String>),
    Done(Done),
}

impl Repeats {
    /// Opens the bucket of replies, which all services share.
    pub async fn open(store: &Store) -> Result<Repeats, Fault> {
        let ttl = Some(Duration::from_millis(KEPT_MS as u64));
        Ok(Repeats(store.bucket(BucketConfig { name: "tg_idem", ttl, history: 1 }).await?))
    }

    /// Does the work, unless a call with this key has done it; calls without a key are done each time.
    ///
    /// Fails as the work does; with CONFLICT (`key_reused`) where the key came with another request, with ABORTED
    /// (`in_progress`) while the first call runs. Only errors that a repeat would meet again are kept.
    pub async fn once<R: Serialize + DeserializeOwned>(
        &self,
        context: &Context,
        work: impl Future<Output = Result<R, Failed<R>>>,
    ) -> Result<R, Failed<R>> {
        self.once_prepared(context, String::new, |_| work).await
    }

    /// As [`Repeats::once`], for work that makes something fresh and random, such as a key: what `prepare` makes is kept
    /// before the work begins, and when a call dies, the one that takes its key over works with the same.
    pub async fn once_prepared<R, F>(
        &self,
        context: &Context,
        prepare: impl FnOnce() -> String,
        work: impl FnOnce(String) -> F,
    ) -> Result<R, Failed<R>>
    where
        R: Serialize + DeserializeOwned,
        F: Future<Output = Result<R, Failed<R>>>,
    {
        let key = context.idempotency_key();
        if key.is_empty() {
            return work(prepare()).await;
        }
        if key.len() > KEY_BYTES_MAX {
            let text = format!("the idempotency key is longer than {KEY_BYTES_MAX} bytes");
            return Err(Fault::client(Code::InvalidArgument, text).detail("reason", "too_long").into());
        }
        let fingerprint = fingerprint(context)?;
        let place = place(context, key);
        let (claim, prepared) = match self.claim(context, &place, &fingerprint, prepare()).await? {
            Ok(claimed) => claimed,
            Err(done) => {
                context.label("idempotent_replay", "true");
                return replayed(done);
            }
        };
        let result = work(prepared).await;
        claim.end(kept(&result), context.now_ms() + KEPT_MS).await;
        result
    }

    /// Marks the key as running, or finds what an earlier call has left.
    async fn claim(
        &self,
        context: &Context,
        place: &str,
        fingerprint: &str,
        prepared: String,
    ) -> Result<Result<(Claim, String), Done>, Fault> {
        // Most keys are new, so that is tried before anybody looks.
        let (mut expected, mut before) = (Expected::Absent, None);
        for _ in 0..TRIES {
            let prepared = before.unwrap_or_else(|| prepared.clone());
            let expires_at_ms = context.now_ms() + RUNNING_MS;
            let owner = uuid::Uuid::new_v4().to_string();
            let record =
                Record { schema: 1, fingerprint: fingerprint.to_owned(), expires_at_ms, prepared, owner, done: None };
            match self.put(place, &record, expected).await {
                Ok(revision) => {
                    let prepared = record.prepared.clone();
                    return Ok(Ok((Claim::new(self, place, revision, record), prepared)));
                }
                Err(StoreError::Conflict) => {}
                // A full store may refuse before it looks; what was done can still be told.
                Err(error @ StoreError::Full(_)) => {
                    return match standing(self.0.get(place).await?, fingerprint, context.now_ms())? {
                        Standing::Done(done) => Ok(Err(done)),
                        Standing::Free(..) => Err(error.into()),
                    };
                }
                Err(error) => {
                    if matches!(error, StoreError::Unavailable(_)) {
                        let (repeats, place) = (self.clone(), place.to_owned());
                        tokio::spawn(async move { repeats.take_back(&place, record, expected).await });
                    }
                    return Err(error.into());
                }
            }
            (expected, before) = match standing(self.0.get(place).await?, fingerprint, context.now_ms())? {
                Standing::Done(done) => return Ok(Err(done)),
                Standing::Free(expected, before) => (expected, before),
            };
        }
        Err(in_progress())
    }

    async fn put(&self, place: &str, record: &Record, expected: Expected) -> Result<u64, StoreError> {
        let bytes = serde_json::to_vec(record).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        self.0.put(place, bytes.into(), expected).await
    }

    /// Takes back a claim of which nobody knows whether it was made. It may still come to be, so that looking is not
    /// enough: a write in its place comes behind it, or keeps it from being made.
    async fn take_back(&self, place: &str, claimed: Record, expected: Expected) {
        let left = Record { expires_at_ms: 0, ..claimed };
        for pause in pauses() {
            tokio::time::sleep(pause).await;
            match self.put(place, &left, expected).await {
                Err(StoreError::Unavailable(_)) => {}
                Err(StoreError::Conflict) => match self.0.get(place).await {
                    Ok(Some(entry)) => return self.take_back_made(place, left, &entry),
                    Ok(None) => return,
                    Err(_) => {}
                },
                _ => return,
            }
        }
    }

    fn take_back_made(&self, place: &str, left: Record, entry: &Entry) {
        let made = serde_json::from_slice::<Record>(&entry.value);
        if made.is_ok_and(|made| made.owner == left.owner && made.expires_at_ms > 0 && made.done.is_none()) {
            drop(Claim::new(self, place, entry.revision, left));
        }
    }
}

/// A call's hold on its key. Dropped before its end, as where a deadline cuts the call, it leaves the key to the next
/// one, with what this one had prepared. A store that does not answer is asked again behind the caller's back: until
/// it has, repeats are told that the call still runs.
struct Claim {
    repeats: Repeats,
    place: String,
    revision: u64,
    /// What the store shall say of the key from now on.
    left: Option<Record>,
}

impl Claim {
    fn new(repeats: &Repeats, place: &str, revision: u64, record: Record) -> Claim {
        let left = Some(Record { expires_at_ms: 0, ..record });
        Claim { repeats: repeats.clone(), place: place.to_owned(), revision, left }
    }

    /// Keeps what is for repeats; where nothing is, the key is free.
    async fn end(mut self, done: Option<Done>, expires_at_ms: i64) {
        if let (Some(left), Some(done)) = (&mut self.left, done) {
            (left.prepared, left.done, left.expires_at_ms) = (String::new(), Some(done), expires_at_ms);
        }
        let Some(left) = &self.left else { return };
        if is_settled(&self.repeats.put(&self.place, left, Expected::Revision(self.revision)).await) {
            self.left = None;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let (Some(left), Ok(runtime)) = (self.left.take(), tokio::runtime::Handle::try_current()) else { return };
        let (repeats, place, expected) = (self.repeats.clone(), self.place.clone(), Expected::Revision(self.revision));
        runtime.spawn(async move {
            for pause in pauses() {
                tokio::time::sleep(pause).await;
                if is_settled(&repeats.put(&place, &left, expected).await) {
                    return;
                }
            }
        });
    }
}

/// True unless the store did not answer: a claim that has become another's is left alone.
fn is_settled(written: &Result<u64, StoreError>) -> bool {
    !matches!(written, Err(StoreError::Unavailable(_)))
}

/// The pauses between tries to let go of a key, which double: about a minute in all.
fn pauses() -> impl Iterator<Item = Duration> {
    (0..LEAVE_TRIES).map(|attempt| LEAVE_PAUSE.saturating_mul(1 << attempt.min(16)).min(LEAVE_PAUSE_MAX))
}

fn standing(entry: Option<Entry>, fingerprint: &str, now_ms: i64) -> Result<Standing, Fault> {
    let Some(entry) = entry else { return Ok(Standing::Free(Expected::Absent, None)) };
    let free = |before| Ok(Standing::Free(Expected::Revision(entry.revision), before));
    let Ok(record) = serde_json::from_slice::<Record>(&entry.value) else { return free(None) };
    if record.expires_at_ms <= now_ms {
        let is_same = record.done.is_none() && record.fingerprint == fingerprint;
        return free(is_same.then_some(record.prepared));
    }
    if record.fingerprint != fingerprint {
        let text = "the idempotency key was used for another request";
        return Err(Fault::client(Code::Conflict, text).detail("reason", "key_reused"));
    }
    record.done.map(Standing::Done).ok_or_else(in_progress)
}

fn in_progress() -> Fault {
    Fault::client(Code::Aborted, "a call with this idempotency key is still running").detail("reason", "in_progress")
}

/// SHA-256 of the request's canonical bytes without its context: equal requests are equal in any encoding.
pub fn fingerprint(context: &Context) -> Result<String, Fault> {
    Ok(hex(&Sha256::digest(canonical_request(context)?)))
}

/// The request's canonical bytes without its context.
pub(super) fn canonical_request(context: &Context) -> Result<Vec<u8>, Fault> {
    let method = context.method();
    let plan = method.envelope.context.as_ref();
    let field = plan.and_then(|plan| method.tables.message(method.request).field_by_number(plan.number));
    canonical(&method.tables, method.request, field, context.payload())
        .map_err(|error| Fault::client(Code::InvalidArgument, error.to_string()).detail("reason", "malformed"))
}

fn place(context: &Context, key: &str) -> String {
    let service = context.instance().split('@').next().unwrap_or_default();
    format!("{}.{}.{}", key_token(service), key_token(context.tenant()), hash_of(context, key))
}

/// What a record keeps of this call's key.
pub(super) fn key_hash(context: &Context) -> String {
    hash_of(context, context.idempotency_key())
}

fn hash_of(context: &Context, key: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(context.method().subject.as_str());
    hash.update([0]);
    hash.update(key);
    hex(&hash.finalize())
}

/// Bytes as lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is kept of a result; errors that may pass free the key instead.
fn kept<R: Serialize>(result: &Result<R, Failed<R>>) -> Option<Done> {
    let json = |reply: &R| serde_json::value::to_raw_value(reply).ok();
    match result {
        Ok(reply) => Some(Done { reply: Some(json(reply)?), fault: None }),
        Err(failed) => {
            let fault = &failed.fault;
            let lasts = matches!(
                fault.code(),
                Code::InvalidArgument | Code::NotFound | Code::Conflict | Code::FailedPrecondition | Code::OutOfRange
            );
            let details = fault.details().iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
            let kept = KeptFault { code: fault.code().name().to_owned(), message: fault.message().to_owned(), details };
            lasts.then(|| Done { reply: failed.reply.as_deref().and_then(json), fault: Some(kept) })
        }
    }
}

fn replayed<R: DeserializeOwned>(done: Done) -> Result<R, Failed<R>> {
    let unreadable = || Fault::ours(Code::Internal, "the kept reply cannot be read");
    let reply = done.reply.map(|text| serde_json::from_slice::<R>(text.get().as_bytes())).transpose();
    let reply = reply.map_err(|_| unreadable())?;
    match done.fault {
        None => Ok(reply.ok_or_else(unreadable)?),
        Some(kept) => Err(Failed { fault: kept.fault(), reply: reply.map(Box::new) }),
    }
}

impl KeptFault {
    fn fault(self) -> Fault {
        let code = Code::from_name(&self.code).unwrap_or(Code::Unknown);
        let details = self.details.into_iter();
        details.fold(Fault::client(code, self.message), |fault, (name, value)| fault.detail(name, value))
    }
}

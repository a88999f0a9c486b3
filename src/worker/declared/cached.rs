//! Declared reads whose replies may be some seconds old: the replies are kept, and a change of a document drops what is kept
//! of it, whether a declaration, a hook or a handler makes it. Lists are kept until they are as old as they may be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::documents::key_of;
use super::fields::Found;
use crate::fault::Fault;
use crate::schema::operation::Operation;
use crate::snapshot::Method;
use crate::store::{BucketConfig, Store, interned};
use crate::worker::records::{Forget, base64_text};
use crate::worker::{Cache, CacheConfig, CacheKey, Context, Keep, Made};

/// Longest time without a look at the shared tier, and most replies in memory.
const LOCAL_TTL: Duration = Duration::from_secs(1);
const LOCAL_MAX: usize = 10_000;

/// The replies of one service, by bucket of the documents that they show.
pub(super) struct Replies(BTreeMap<String, OfBucket>);

struct OfBucket {
    cache: Cache<Reply>,
    /// Subjects of the methods that read one document.
    gets: Arc<[String]>,
}

/// The reply's fields, without its context.
#[derive(Serialize, Deserialize)]
struct Reply(#[serde(with = "base64_text")] Vec<u8>);

impl Replies {
    pub(super) async fn open(store: &Store, methods: &[Arc<Method>]) -> Result<Replies, Fault> {
        let mut longest: BTreeMap<&str, (Duration, Vec<String>)> = BTreeMap::new();
        for method in methods {
            let Some(operation) = &method.operation else { continue };
            let (Some(kind), Some(ttl)) = (operation.kind(), operation.cache()) else { continue };
            let (longest, gets) = longest.entry(&kind.bucket).or_default();
            *longest = ttl.max(*longest);
            if matches!(**operation, Operation::Get { .. }) {
                gets.push(method.subject.as_str().to_owned());
            }
        }
        let mut replies = BTreeMap::new();
        for (bucket, (ttl, gets)) in longest {
            let name = interned(&format!("{bucket}_cache"));
            let bucket_config = BucketConfig { name, ttl: Some(ttl), history: 1 };
            let config = CacheConfig { name, bucket: bucket_config, local_ttl: LOCAL_TTL, local_max: LOCAL_MAX };
            replies.insert(bucket.to_owned(), OfBucket { cache: Cache::open(store, config).await?, gets: gets.into() });
        }
        Ok(Replies(replies))
    }

    /// A reply that is kept, or made now.
    pub(super) async fn read(
        &self,
        found: &Found<'_>,
        operation: &Operation,
        make: impl Future<Output = Result<Vec<u8>, Fault>>,
    ) -> Result<Vec<u8>, Fault> {
        let replies = operation.kind().and_then(|kind| self.0.get(&kind.bucket));
        let (Some(ttl), Some(replies)) = (operation.cache(), replies) else { return make.await };
        let context = found.context;
        let key = match operation {
            // By its document, so that a change of that finds it.
            Operation::Get { key, .. } => {
                of_document(context, context.method().subject.as_str(), &key_of(found, found.chosen(key)?)?)
            }
            _ => CacheKey::of_request(context)?,
        };
        let make = async { Ok(Made { value: Reply(make.await?), is_kept: true }) };
        let (reply, _) = replies.cache.read(context, &key, Keep { ttl, tag: "" }, make).await?;
        Ok(reply.0.clone())
    }

    /// By bucket, what drops the replies that show a document.
    pub(super) fn forgets(&self) -> impl Iterator<Item = (&str, Forget)> {
        self.0.iter().map(|(bucket, OfBucket { cache, gets })| {
            let (cache, gets) = (cache.clone(), gets.clone());
            let forget: Forget = Arc::new(move |context, place| {
                let (cache, gets) = (cache.clone(), gets.clone());
                Box::pin(async move {
                    for subject in &*gets {
                        cache.forget(&of_document(context, subject, place)).await;
                    }
                })
            });
            (bucket.as_str(), forget)
        })
    }
}

fn of_document(context: &Context, subject: &str, place: &str) -> CacheKey {
    CacheKey::of_parts(context, &[subject.as_bytes(), place.as_bytes()])
}

//! The tier of a cache that all replicas share: a bucket of the store, or Redis where the store was given one. A value
//! has a tag that it is dropped by, and an age at which it goes.

use std::time::Duration;

use bytes::Bytes;

use super::redis_tier::RedisTier;
use super::{Bucket, BucketConfig, Expected, Keys, Store, StoreError};

/// The shared tier of one cache. Cloning shares it.
#[derive(Clone)]
pub struct Tier(TierEngine);

#[derive(Clone)]
enum TierEngine {
    Bucket(Bucket),
    Redis(RedisTier),
}

impl Store {
    /// The shared tier of that name: on Redis where this store has one, else the bucket, made where there is none yet.
    pub async fn tier(&self, config: BucketConfig) -> Result<Tier, StoreError> {
        Ok(Tier(match &self.cache {
            Some(cache) => TierEngine::Redis(cache.tier(config.name)),
            None => TierEngine::Bucket(self.bucket(config).await?),
        }))
    }
}

impl Tier {
    /// The value under a key, as any replica has it. Fails within some milliseconds where Redis does not answer.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        match &self.0 {
            TierEngine::Bucket(bucket) => Ok(bucket.get_cached(key).await?.map(|entry| entry.value)),
            TierEngine::Redis(tier) => tier.get(key).await,
        }
    }

    /// Keeps a value for a while; a bucket keeps it as long as its own age says.
    pub async fn put(&self, key: &str, value: Bytes, ttl: Duration, tag: &str) -> Result<(), StoreError> {
        match &self.0 {
            TierEngine::Bucket(bucket) => bucket.put(key, value, Expected::Any).await.map(drop),
            TierEngine::Redis(tier) => tier.put(key, &value, ttl, tag).await,
        }
    }

    /// Drops a value.
    pub async fn forget(&self, key: &str) -> Result<(), StoreError> {
        match &self.0 {
            // A deletion of what is not there would be a record, too.
            TierEngine::Bucket(bucket) => match bucket.get_cached(key).await? {
                Some(_) => bucket.delete(key, Expected::Any).await.map(drop),
                None => Ok(()),
            },
            TierEngine::Redis(tier) => tier.forget(key).await,
        }
    }

    /// Drops what has a tag, under some first token or everywhere. A bucket knows no tags: `has_tag` reads them from
    /// its values.
    pub async fn drop_tagged(
        &self,
        under: Option<&str>,
        tag: &str,
        has_tag: impl Fn(&[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let bucket = match &self.0 {
            TierEngine::Bucket(bucket) => bucket,
            TierEngine::Redis(tier) => return tier.drop_tagged(under, tag).await,
        };
        let keys = under.map_or(Keys::All, |token| Keys::Under(token.to_owned()));
        for entry in bucket.list(&keys).await? {
            if has_tag(&entry.value) {
                // Another replica may have been faster, or a newer value may stand there by now: both are fine.
                let _ = bucket.delete(&entry.key, Expected::Revision(entry.revision)).await;
            }
        }
        Ok(())
    }
}

//! Token budgets of tenants: a bucket that refills by the minute, one for all replicas.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fault::{Code, Fault};
use crate::store::{Bucket, BucketConfig, Expected, Store, StoreError, key_token};
use crate::worker::Context;

/// Tries of a write that keeps losing its race, and the longest pause between two of them.
const TRIES: u32 = 20;
const PAUSE_MS: std::ops::RangeInclusive<u64> = 5..=50;
const MINUTE_MS: f64 = 60_000.0;

/// What is left to each tenant.
pub(super) struct Budgets {
    bucket: Bucket,
    /// Writers of this replica queue, so that it never races itself.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    schema: u32,
    /// Left at that moment; below 0 where a generation cost more than was estimated.
    tokens: f64,
    at_ms: i64,
}

impl Budgets {
    pub(super) async fn open(store: &Store) -> Result<Budgets, Fault> {
        let ttl = Some(Duration::from_secs(600));
        let bucket = store.bucket(BucketConfig { name: "tg_llm_quota", ttl, history: 1 }).await?;
        Ok(Budgets { bucket, turn: tokio::sync::Mutex::new(()) })
    }

    /// Takes what a generation may cost. Fails with RESOURCE_EXHAUSTED where that is not left.
    pub(super) async fn take(&self, context: &Context, per_minute: u32, estimate: u32) -> Result<(), Fault> {
        let limit = f64::from(per_minute);
        // One that may cost more than a minute's budget still passes when the bucket is full.
        let wanted = f64::from(estimate).min(limit);
        self.change(context, per_minute, |left| {
            if left >= wanted {
                return Ok(left - wanted);
            }
            let wait_ms = (wanted - left) / limit * MINUTE_MS;
            Err(Fault::client(Code::ResourceExhausted, "the tenant's token budget is used up")
                .detail("reason", "token_budget")
                .detail("limit", per_minute.to_string())
                .retry_after(Duration::from_millis(wait_ms.ceil() as u64)))
        })
        .await
    }

    /// Gives back what was estimated and takes what it cost. A budget that cannot be settled stays estimated.
    pub(super) async fn settle(&self, context: &Context, per_minute: u32, estimate: u32, cost: u32) {
        let estimate = estimate.min(per_minute);
        if estimate == cost {
            return;
        }
        let settled = self.change(context, per_minute, |left| Ok(left + f64::from(estimate) - f64::from(cost))).await;
        if let Err(fault) = settled {
            tracing::debug!(%fault, "a token budget stays as it was estimated");
        }
    }

    async fn change(
        &self,
        context: &Context,
        per_minute: u32,
        rule: impl Fn(f64) -> Result<f64, Fault>,
    ) -> Result<(), Fault> {
        let (key, limit) = (key_token(context.tenant()), f64::from(per_minute));
        let _turn = self.turn.lock().await;
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(PAUSE_MS))).await;
            }
            let entry = self.bucket.get(&key).await?;
            let now_ms = context.now_ms();
            let record = entry.as_ref().and_then(|entry| serde_json::from_slice::<Record>(&entry.value).ok());
            let left = record.map_or(limit, |record| {
                let passed_ms = (now_ms - record.at_ms).max(0) as f64;
                (record.tokens + passed_ms / MINUTE_MS * limit).min(limit)
            });
            let record = Record { schema: 1, tokens: rule(left)?.min(limit), at_ms: now_ms };
            let bytes = serde_json::to_vec(&record).map_err(|error| StoreError::Unavailable(error.to_string()))?;
            let expected = entry.map_or(Expected::Absent, |entry| Expected::Revision(entry.revision));
            match self.bucket.put(&key, bytes.into(), expected).await {
                Ok(_) => return Ok(()),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Fault::ours(Code::Aborted, "too many writers at once: try again").detail("reason", "race"))
    }
}

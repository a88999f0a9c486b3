//! The shared tier of caches on Redis or Valkey. Values are strings with an age; a sorted set for each tag knows which
//! keys have it, and until when. A server that does not answer costs a read some milliseconds, and then nothing for a
//! moment.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, FromRedisValue, Pipeline, RedisError, cmd, pipe};

use super::StoreError;
use crate::limits::{Breaker, BreakerRule};

/// Longest wait for all answers where what has a tag is dropped.
const DROP_MAX: Duration = Duration::from_secs(2);
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Pauses between attempts to connect.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_millis(500);
/// After failures in a row nothing is asked for a moment.
const RULE: BreakerRule = BreakerRule { failures: 3, open: Duration::from_secs(1), probes: 1 };
/// Keys that are dropped by one command.
const KEYS_AT_ONCE: usize = 500;
/// What all keys begin with where the address does not say.
const PREFIX: &str = "tidegate";
/// Longest such beginning in bytes.
const PREFIX_MAX: usize = 64;

/// A server.
pub(super) struct RedisCache {
    connection: ConnectionManager,
    /// What all keys begin with: environments that share a server have one each.
    prefix: String,
    /// Longest wait for an answer.
    patience: Duration,
    breaker: Breaker,
    started: Instant,
}

/// The values of one cache on a server.
#[derive(Clone)]
pub(super) struct RedisTier {
    cache: Arc<RedisCache>,
    name: &'static str,
}

impl RedisCache {
    /// Connects when it is first asked. To be called where tasks can be started.
    pub(super) fn open(url: &str, patience: Duration) -> Result<Arc<RedisCache>, StoreError> {
        let (url, prefix) = apart(url)?;
        // What the client says of a URL may hold its password.
        let refused = |_: RedisError| {
            let expected = "expected one such as `redis://user:password@host:6379/0`, or `rediss://` for TLS";
            StoreError::Refused(format!("the address of the cache is none: {expected}"))
        };
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_MAX))
            .set_response_timeout(Some(DROP_MAX.max(patience)))
            .set_min_delay(RECONNECT_MIN)
            .set_max_delay(RECONNECT_MAX);
        let client = Client::open(url).map_err(refused)?;
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(refused)?;
        Ok(Arc::new(RedisCache { connection, prefix, patience, breaker: Breaker::new(RULE), started: Instant::now() }))
    }

    pub(super) fn tier(self: &Arc<Self>, name: &'static str) -> RedisTier {
        RedisTier { cache: self.clone(), name }
    }

    /// Asks, unless the server did not answer a moment ago.
    async fn ask<T: Answer>(&self, question: Pipeline) -> Result<T, StoreError> {
        let Ok(pass) = self.breaker.admit(self.started.elapsed()) else {
            return Err(StoreError::Unavailable("the cache did not answer a moment ago".to_owned()));
        };
        let answer = self.within(self.patience, question).await;
        match &answer {
            Err(StoreError::Unavailable(_)) => pass.failed(self.started.elapsed()),
            _ => pass.succeeded(),
        }
        answer
    }

    /// Asks in a task of its own, so that a connection that takes longer to make is made all the same. There are few such
    /// tasks: each ends with the client's own time-outs, and the breaker lets one in a second start.
    async fn within<T: Answer>(&self, longest: Duration, question: Pipeline) -> Result<T, StoreError> {
        let mut connection = self.connection.clone();
        let asking = tokio::spawn(async move { question.query_async::<T>(&mut connection).await });
        match tokio::time::timeout(longest, asking).await {
            Ok(Ok(answer)) => answer.map_err(|error| failure(&error)),
            Ok(Err(error)) => Err(StoreError::Unavailable(error.to_string())),
            Err(_) => Err(StoreError::Unavailable(format!("the cache did not answer within {longest:?}"))),
        }
    }
}

impl RedisTier {
    pub(super) async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let mut question = pipe();
        question.cmd("GET").arg(self.value_key(key));
        let (value,): (Option<Bytes>,) = self.cache.ask(question).await?;
        Ok(value)
    }

    pub(super) async fn put(&self, key: &str, value: &[u8], ttl: Duration, tag: &str) -> Result<(), StoreError> {
        let (now_ms, ttl_ms) = (now_ms(), (ttl.as_millis() as u64).max(1));
        let (tag, until_ms) = (self.tag_key(tag), now_ms + ttl_ms);
        let mut question = pipe();
        // The set lives as long as its youngest value, and lets go of what has gone by itself.
        question.atomic();
        question.cmd("SET").arg(self.value_key(key)).arg(value).arg("PX").arg(ttl_ms).ignore();
        question.cmd("ZREMRANGEBYSCORE").arg(&tag).arg("-inf").arg(now_ms).ignore();
        question.cmd("ZADD").arg(&tag).arg(until_ms).arg(key).ignore();
        question.cmd("PEXPIREAT").arg(&tag).arg(until_ms).arg("NX").ignore();
        question.cmd("PEXPIREAT").arg(&tag).arg(until_ms).arg("GT").ignore();
        self.cache.ask(question).await
    }

    /// Drops a value; its tag lets go of it by its age. As for tags below, also while reads pass the server by.
    pub(super) async fn forget(&self, key: &str) -> Result<(), StoreError> {
        let mut question = pipe();
        question.cmd("UNLINK").arg(self.value_key(key)).ignore();
        self.cache.within(self.cache.patience, question).await
    }

    /// Also while reads pass the server by: what is stale must not be found once it answers again.
    pub(super) async fn drop_tagged(&self, under: Option<&str>, tag: &str) -> Result<(), StoreError> {
        let tag = self.tag_key(tag);
        let mut question = pipe();
        question.cmd("ZRANGE").arg(&tag).arg(0).arg(-1);
        let (keys,): (Vec<String>,) = self.cache.within(DROP_MAX, question).await?;
        let is_under =
            |key: &&String| under.is_none_or(|token| key.strip_prefix(token).is_some_and(|rest| rest.starts_with('.')));
        let keys: Vec<&String> = keys.iter().filter(is_under).collect();
        for keys in keys.chunks(KEYS_AT_ONCE) {
            let (mut unlink, mut forget) = (cmd("UNLINK"), cmd("ZREM"));
            forget.arg(&tag);
            for key in keys {
                unlink.arg(self.value_key(key));
                forget.arg(key);
            }
            let mut question = pipe();
            question.atomic().add_command(unlink).ignore().add_command(forget).ignore();
            self.cache.within::<()>(DROP_MAX, question).await?;
        }
        Ok(())
    }

    fn value_key(&self, key: &str) -> String {
        format!("{}:{}:{key}", self.cache.prefix, self.name)
    }

    fn tag_key(&self, tag: &str) -> String {
        format!("{}:{}#{tag}", self.cache.prefix, self.name)
    }
}

/// The address without its `prefix`, and that.
fn apart(url: &str) -> Result<(String, String), StoreError> {
    let Some((server, query)) = url.split_once('?') else { return Ok((url.to_owned(), PREFIX.to_owned())) };
    let (ours, others): (Vec<&str>, Vec<&str>) = query.split('&').partition(|pair| pair.starts_with("prefix="));
    let prefix = ours.last().and_then(|pair| pair.strip_prefix("prefix=")).unwrap_or(PREFIX);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if prefix.is_empty() || prefix.len() > PREFIX_MAX || !prefix.bytes().all(is_plain) {
        let expected = format!("expected 1 to {PREFIX_MAX} letters, digits, `-`, `_`, `.` and `:`");
        return Err(StoreError::Refused(format!("`prefix` of the address of the cache: {expected}")));
    }
    let query = if others.is_empty() { String::new() } else { format!("?{}", others.join("&")) };
    Ok((format!("{server}{query}"), prefix.to_owned()))
}

/// What a task brings back.
trait Answer: FromRedisValue + Send + 'static {}
impl<T: FromRedisValue + Send + 'static> Answer for T {}

/// An error that the server answered with is no failure of the connection.
fn failure(error: &RedisError) -> StoreError {
    let is_lost = error.is_io_error() || error.is_timeout() || error.is_connection_dropped();
    let text = error.to_string();
    if is_lost { StoreError::Unavailable(text) } else { StoreError::Refused(text) }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_name_what_keys_begin_with() {
        let refused = "`prefix` of the address of the cache: expected 1 to 64 letters, digits, `-`, `_`, `.` and `:`";
        let refused = || Err(StoreError::Refused(refused.to_owned()));
        let apart = |url: &str| super::apart(url);
        let ok = |url: &str, prefix: &str| Ok((url.to_owned(), prefix.to_owned()));
        assert_eq!(apart("redis://h:6379/0"), ok("redis://h:6379/0", "tidegate"));
        assert_eq!(apart("redis://h/0?prefix=game:staging"), ok("redis://h/0", "game:staging"));
        assert_eq!(apart("redis://h?protocol=resp3&prefix=a"), ok("redis://h?protocol=resp3", "a"));
        assert_eq!(apart("redis://h?protocol=resp3"), ok("redis://h?protocol=resp3", "tidegate"));
        assert_eq!(apart("redis://h?prefix="), refused());
        assert_eq!(apart("redis://h?prefix=a*"), refused());
        assert_eq!(apart(&format!("redis://h?prefix={}", "a".repeat(65))), refused());
    }
}

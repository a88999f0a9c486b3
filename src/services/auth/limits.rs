//! Rate limits that all replicas share: one number for each user, resource and action says how full its bucket is.
//!
//! The rule is the generic cell rate algorithm. What is stored is the theoretical arrival time as a moment and the part
//! that lies ahead of it, because a double cannot hold fractions of a millisecond behind thirteen digits.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::messages::{CheckRateLimit, RateLimit};
use super::{Auth, key};
use crate::fault::Fault;
use crate::services::checks::{id, invalid, out_of_range, owner, required, short};
use crate::services::numbers::comparable;
use crate::worker::records::{Change, Current};
use crate::worker::{Context, Failed};

/// Age at which the bucket of the store lets a record go.
pub(super) const KEPT: Duration = Duration::from_secs(600);
/// What a bucket holds at most, as the time that it takes to fill.
const MINUTE_MS: f64 = 60_000.0;
/// Longest name of a resource or action in bytes.
const NAME_MAX: usize = 128;

/// A bucket: at `at_ms` it was `ahead_ms` from being full.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Filling {
    at_ms: i64,
    ahead_ms: f64,
}

impl Filling {
    /// How far it is from being full now.
    fn ahead(self, now_ms: i64) -> f64 {
        (self.ahead_ms - now_ms.saturating_sub(self.at_ms) as f64).max(0.0)
    }
}

impl Auth {
    pub(super) async fn check_rate_limit(
        self: Arc<Self>,
        context: Context,
        request: CheckRateLimit,
    ) -> Result<RateLimit, Failed<RateLimit>> {
        let settings = self.settings.now();
        let whose = whose(&context, settings.auth.enforce, &request.user_id)?;
        if request.resource.is_empty() {
            return Err(required("resource").into());
        }
        short("resource", &request.resource, NAME_MAX)?;
        short("action", &request.action, NAME_MAX)?;
        if request.cost < 0 {
            return Err(out_of_range("cost", 0, i32::MAX).into());
        }
        let limit = settings.auth.limits.get(&request.resource).copied().unwrap_or(settings.auth.other_limit);
        let place = key(&[context.tenant(), &whose, &request.resource, &request.action]);
        let rule = |current: &Current<Filling>| {
            // Another replica's clock may lie ahead.
            let before = current.value.map_or(0.0, |filling| filling.ahead(current.now_ms));
            let (reply, after) = take(limit, before, request.cost.max(1), current.now_ms);
            let Some(ahead_ms) = after else { return Ok(Change::nothing(reply)) };
            let full_at_ms = reply.reset_at_ms;
            Ok(Change::put(Filling { at_ms: current.now_ms, ahead_ms }, reply).expires_at_ms(full_at_ms))
        };
        let write = async { Ok(self.limits.change(&context, &place, rule).await?.reply) };
        self.repeats.once(&context, write).await
    }
}

/// Whose bucket it is: the user's, else the client's, whose names do not meet those of users.
fn whose(context: &Context, enforces: bool, user_id: &str) -> Result<String, Fault> {
    if !user_id.is_empty() {
        id("user_id", user_id)?;
        owner(context, enforces, "user_id", user_id)?;
        return Ok(user_id.to_owned());
    }
    match context.caller().text("client_id") {
        "" => Err(invalid("user_id", "required", "user_id or meta.client_id is required")),
        client_id => id("meta.client_id", client_id).map(|()| format!("client:{client_id}")),
    }
}

/// Takes `cost` tokens from a bucket that is `before` milliseconds from being full; the reply, and how far it is then,
/// where it had enough.
fn take(limit: u32, before: f64, cost: i32, now_ms: i64) -> (RateLimit, Option<f64>) {
    let token_ms = MINUTE_MS / f64::from(limit);
    let after = before + f64::from(cost) * token_ms;
    let left = comparable(MINUTE_MS - after);
    let limit = limit as i32;
    if left < 0.0 {
        let (reset_at_ms, retry_after_ms) = (now_ms + whole_ms(before), whole_ms(-left));
        return (RateLimit { allowed: false, remaining: 0, limit, reset_at_ms, retry_after_ms }, None);
    }
    let remaining = comparable(left / token_ms).floor() as i32;
    let reset_at_ms = now_ms + whole_ms(after);
    (RateLimit { allowed: true, remaining, limit, reset_at_ms, retry_after_ms: 0 }, Some(after))
}

/// Times are rounded up.
fn whole_ms(time: f64) -> i64 {
    comparable(time).ceil() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_exactly_its_limit_in_one_instant_and_one_token_a_step_after() {
        for limit in [1, 3, 7, 10, 77, 1_000, 59_999] {
            let (mut ahead, mut given) = (0.0, 0);
            while let (_, Some(after)) = take(limit, ahead, 1, 0) {
                (ahead, given) = (after, given + 1);
            }
            assert_eq!(given, limit);
            let (refused, _) = take(limit, ahead, 1, 0);
            let wait_ms = refused.retry_after_ms;
            let filling = Filling { at_ms: 0, ahead_ms: ahead };
            assert!(take(limit, filling.ahead(wait_ms), 1, wait_ms).0.allowed, "{limit} a minute after {wait_ms} ms");
        }
    }

    #[test]
    fn times_are_whole_and_rounded_up() {
        let (reply, _) = take(7, 0.0, 2, 1_000);
        let expected = RateLimit { allowed: true, remaining: 5, limit: 7, reset_at_ms: 18_143, retry_after_ms: 0 };
        assert_eq!(reply, expected);
    }
}

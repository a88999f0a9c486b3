//! Asynchronous calls: answered at once, made behind the reply, and kept for whoever asks for the result.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::health::millis;
use super::{Class, Hints, KEPT, Kept, Route, Routed, Router};
use crate::fault::{Code, Fault};
use crate::services::common::Error;
use crate::services::seed::{Part, seed, tenant_part};
use crate::store::key;
use crate::worker::records::{Change, Current, Document};
use crate::worker::{Context, Failed};

/// What a job gets beyond its call's timeout before it counts as lost with its replica.
const GRACE_MS: i64 = 5_000;

/// A job as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// Until then its replica is at it.
    until_ms: i64,
    /// Nothing while it runs.
    done: Option<Done>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Done {
    /// The target's reply in base64.
    payload: String,
    routed_to: String,
    latency_ms: i64,
    error: Option<Error>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct GetJob {
    job_id: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct JobShown {
    status: String,
    result: Option<Routed>,
}

impl Router {
    /// Stores a job, and makes its call behind the reply. The same key has the same job.
    pub(super) async fn begin_job(
        self: &Arc<Self>,
        context: &Context,
        request: Route,
        hints: Hints,
    ) -> Result<Routed, Fault> {
        let source =
            if context.idempotency_key().is_empty() { context.request_id() } else { context.idempotency_key() };
        let parts = [Part::Text("router.job.v1"), tenant_part(context.tenant()), Part::Text(source)];
        let job_id = format!("job_{:016x}", seed(&parts));
        let place = key(&[context.tenant(), "job", &job_id]);
        let timeout_ms = i64::from(hints.timeout_ms.unwrap_or(hints.class.timeout_ms()));
        let own = context.for_requester(&context.requester());
        let rule = |current: &Current<Kept>| {
            if current.value.is_some() {
                return Ok(Change::nothing(false));
            }
            let job = Job { until_ms: current.now_ms + timeout_ms + GRACE_MS, done: None };
            Ok(Change::put(Kept::Job(job), true).expires_at_ms(current.now_ms + millis(KEPT)))
        };
        let begun = self.kept.change(&own, &place, rule).await.map_err(|failed: Failed<bool>| failed.fault)?;
        if begun.reply {
            let router = self.clone();
            tokio::spawn(async move { router.run_job(own, place, request, hints).await });
        }
        context.label("job_id", job_id.as_str());
        Ok(Routed { routed_to: "bronze".to_owned(), job_id, ..Routed::default() })
    }

    async fn run_job(self: Arc<Self>, context: Context, place: String, request: Route, hints: Hints) {
        let hints = Hints { class: Class::Bronze, ..hints };
        let done = match self.call(&context, &request, &hints).await {
            Ok(routed) => Done {
                payload: STANDARD.encode(&routed.response_payload),
                routed_to: routed.routed_to,
                latency_ms: routed.latency_ms,
                error: None,
            },
            Err(failed) => Done {
                payload: String::new(),
                routed_to: failed.reply.map(|reply| reply.routed_to).unwrap_or_default(),
                latency_ms: 0,
                error: Some(Error::from(&failed.fault)),
            },
        };
        let rule = |current: &Current<Kept>| {
            let Some(Kept::Job(job)) = &current.value else { return Ok(Change::nothing(())) };
            let job = Job { done: Some(done.clone()), ..job.clone() };
            Ok(Change::put(Kept::Job(job), ()).expires_at_ms(current.now_ms + millis(KEPT)))
        };
        if let Err(Failed { fault, .. }) = self.kept.change::<()>(&context, &place, rule).await {
            // The job then counts as lost, which its caller is told.
            tracing::warn!(%fault, "the result of a job is not kept");
        }
    }
}

/// A job and, once it is there, its result.
pub(super) fn get_job(
    context: &Context,
    GetJob { job_id }: &GetJob,
    stored: Option<Document<Kept>>,
) -> Result<JobShown, Fault> {
    let Some(Kept::Job(job)) = stored.map(|stored| stored.value) else {
        let fault = Fault::client(Code::NotFound, format!("job {job_id} does not exist"));
        return Err(fault.detail("field", "job_id"));
    };
    let job_id = job_id.clone();
    let (status, result) = match job.done {
        Some(Done { payload, routed_to, latency_ms, error }) => {
            let status = if error.is_some() { "failed" } else { "completed" };
            let response_payload = STANDARD.decode(payload).unwrap_or_default().into();
            (status, Some(Routed { response_payload, routed_to, latency_ms, job_id, error, meta: None }))
        }
        None if job.until_ms <= context.now_ms() => {
            let fault = Fault::ours(Code::Unavailable, "the replica that made the call is gone: try it again");
            let error = Some(Error::from(&fault.detail("reason", "lost")));
            ("failed", Some(Routed { job_id, error, ..Routed::default() }))
        }
        None => ("running", None),
    };
    Ok(JobShown { status: status.to_owned(), result })
}

//! Revoked tokens as they become known: the stream that the credential's declaration names, followed for as long as the
//! edge runs, from the first token on. While it is away, tokens are believed for their time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::credit::{Credit, WINDOW};
use super::tokens::Key;
use super::{Edge, listener};
use crate::bus::{BusError, Delivery, Limits};
use crate::fault::{Code, Fault};
use crate::snapshot::{Credential, Revocations, Snapshot};

/// Pause before a lost stream is asked for again, half of it at the least.
const RETRY: Duration = Duration::from_secs(2);
/// A stream that says nothing for so long is lost: its heartbeats come every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// Follows the stream of the tables as they are, until the edge stops.
pub(super) async fn follow(edge: Arc<Edge>, mut stopped: watch::Receiver<bool>) {
    let mut changes = edge.live.changes();
    loop {
        changes.mark_unchanged();
        let snapshot = edge.live.pin();
        let told = async {
            match &snapshot.credential {
                Some(credential) => follow_one(&edge, &snapshot, credential).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = told => {}
            _ = changes.changed() => {}
            () = listener::until(&mut stopped) => return,
        }
    }
}

/// Asks for a stream again and again, each time behind what the last one has told.
async fn follow_one(edge: &Edge, snapshot: &Snapshot, credential: &Credential) {
    let Some(revocations) = &credential.revocations else { return std::future::pending().await };
    edge.tokens.until_used().await;
    let (mut after, mut is_known_as_lost) = (0, false);
    loop {
        let Err(fault) = listen(edge, snapshot, credential, revocations, &mut after, &mut is_known_as_lost).await;
        // Once a loss.
        if !std::mem::replace(&mut is_known_as_lost, true) {
            tracing::warn!(%fault, "nobody tells of revoked tokens now: they are believed for up to 4 s");
        }
        tokio::time::sleep(RETRY.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }
}

/// One stream, until it is lost.
async fn listen(
    edge: &Edge,
    snapshot: &Snapshot,
    credential: &Credential,
    Revocations { method, plan }: &Revocations,
    after: &mut u64,
    is_known_as_lost: &mut bool,
) -> Result<std::convert::Infallible, Fault> {
    let mut headers = method.request_headers.and_room_for(1);
    headers.push("Tidegate-Window", WINDOW);
    let payload = plan.request(*after).into();
    let mut stream = edge.bus.open_stream(method.subject.clone(), headers, payload, Limits::STREAM).await?;
    let mut credit = Credit::default();
    let lost = || Fault::upstream(Code::Unavailable, "the stream of revoked tokens is lost");
    loop {
        let next = tokio::time::timeout(SILENCE_MAX, stream.next()).await.map_err(|_| lost())?;
        let delivery: Delivery = next.ok_or_else(lost)?.map_err(|_| lost())?;
        if delivery.is_no_responders {
            return Err(BusError::NoResponders.into());
        }
        if std::mem::take(is_known_as_lost) {
            tracing::info!("revoked tokens are told of again");
        }
        if delivery.payload.is_empty() {
            continue;
        }
        let chunk = method.envelope.open_chunk(&snapshot.tables, method.chunk, &delivery.payload)?;
        if let Some(fault) = chunk.fault {
            return Err(fault);
        }
        if let Some(hash) = plan.read(&delivery.payload) {
            edge.tokens.revoke(&Key::of_hash(credential, &hash));
        }
        *after = chunk.id.unwrap_or(*after);
        if chunk.is_last {
            return Err(lost());
        }
        credit.note_control(&delivery);
        credit.note_taken(delivery.payload.len() as u64);
        if let Some(message) = credit.due() {
            let _ = edge.bus.publish(message).await;
        }
    }
}

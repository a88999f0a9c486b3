//! Leaving a server that is about to stop, before it closes the connection on calls that wait for their replies: new
//! calls are held for a moment, and once none is under way the connection is made again elsewhere.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::super::Status;
use super::NatsBus;

/// How long new calls are held while those under way come to their end.
const HOLD_MAX: Duration = Duration::from_millis(250);
/// How often we look whether they have.
const LOOK: Duration = Duration::from_millis(2);
/// How long calls are held while the new connection is made.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Pause before the next attempt, where calls take longer than they may be held. A server waits 10 s by default.
const PAUSE: Duration = Duration::from_millis(500);

/// Moves as often as a server says that it is about to stop; ends with the bus.
pub(super) async fn leave_lame_ducks(bus: Weak<NatsBus>) {
    let Some(mut status) = bus.upgrade().map(|bus| bus.status()) else { return };
    loop {
        if status.wait_for(|status| *status == Status::LameDuck).await.is_err() {
            return;
        }
        let Some(bus) = bus.upgrade() else { return };
        if bus.knows_other_servers() {
            bus.link.hold(true);
            if is_quiet(&bus).await && bus.client.force_reconnect().await.is_ok() {
                tracing::info!("moving to another bus server");
                let _ = timeout(CONNECT_MAX, status.wait_for(|status| *status == Status::Connected)).await;
            }
            bus.link.hold(false);
        }
        drop(bus);
        sleep(PAUSE).await;
    }
}

/// Waits until no call is under way; false where that takes too long.
async fn is_quiet(bus: &Arc<NatsBus>) -> bool {
    let end = Instant::now() + HOLD_MAX;
    while bus.replies.pending() > 0 {
        if Instant::now() >= end {
            return false;
        }
        sleep(LOOK).await;
    }
    true
}

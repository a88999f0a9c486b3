//! What a stream says beside its chunks: that it has begun, and in silence that it is still there.

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::Outlet;
use crate::bus::Headers;
use crate::envelope::STREAM_BEGUN;

impl Outlet {
    /// A heartbeat that says more, so that callers who do not know the word take it for one.
    pub(super) async fn begin(&self) {
        if !std::mem::replace(&mut self.sent().is_begun, true) {
            self.sign(&["Stream-Heartbeat", STREAM_BEGUN]).await;
        }
    }

    /// A sign of life; not a chunk.
    pub(super) async fn beat(&self) {
        if self.sent().at.elapsed() >= self.0.context.around().heartbeat {
            // Until a chunk says it, too: the first word may be lost.
            let is_told_again = {
                let sent = self.sent();
                sent.is_begun && sent.chunks == 0
            };
            let names: &[&'static str] =
                if is_told_again { &["Stream-Heartbeat", STREAM_BEGUN] } else { &["Stream-Heartbeat"] };
            self.sign(names).await;
        }
    }

    /// A message without a body. Whoever misses it hears the next one.
    async fn sign(&self, names: &[&'static str]) {
        self.sent().at = Instant::now();
        let mut headers = Headers::with_capacity(names.len());
        for name in names {
            headers.push(*name, "1");
        }
        let _ = self.publish_raw(headers, Bytes::new()).await;
    }

    /// Returns at the deadline if the stream has not begun by then: it is the caller's limit for that.
    pub(super) async fn until_late(&self) {
        if let Some(deadline) = self.0.context.deadline() {
            sleep_until(deadline).await;
            if !self.sent().is_begun {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

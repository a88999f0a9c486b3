//! A service of the bench's own: a thread with a bus connection, which ends with this value.

use async_nats::{Client, Subscriber};
use tokio::sync::{mpsc, oneshot};

/// `T` is what it can be told.
pub struct Service<T>(mpsc::UnboundedSender<T>);

impl<T: Send + 'static> Service<T> {
    /// Subscribes to `subject` on its own thread, and runs `serve` with the requests and what it is told there.
    pub async fn start<F: Future<Output = ()>>(
        url: &str,
        subject: &'static str,
        serve: impl FnOnce(Client, Subscriber, mpsc::UnboundedReceiver<T>) -> F + Send + 'static,
    ) -> Service<T> {
        let (tell, told) = mpsc::unbounded_channel();
        let (ready, is_ready) = oneshot::channel();
        let url = url.to_owned();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let client = async_nats::connect(url).await.expect("nats-server answers");
                let requests = client.queue_subscribe(subject, "q.bench".to_owned()).await.expect("subscribed");
                client.flush().await.expect("flushed");
                let _ = ready.send(());
                serve(client, requests, told).await;
            });
        });
        is_ready.await.expect("the service subscribes");
        Service(tell)
    }

    pub fn tell(&self, what: T) {
        self.0.send(what).expect("the service runs");
    }
}

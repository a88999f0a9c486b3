//! Where a test runs: in this process alone, or on a nats-server of its own.

use tidegate::bus::Bus;

use super::nats::NatsServer;

pub struct Place {
    pub bus: Bus,
    server: Option<NatsServer>,
}

impl Place {
    /// The embedded bus.
    pub fn embedded() -> Place {
        Place { bus: Bus::embedded(), server: None }
    }

    /// A server, and a connection to it.
    pub async fn nats() -> Place {
        let server = NatsServer::start();
        Place { bus: server.bus().await, server: Some(server) }
    }

    pub fn server(&self) -> Option<&NatsServer> {
        self.server.as_ref()
    }

    /// Another connection; in one process there is only one bus.
    pub async fn another_bus(&self) -> Bus {
        match &self.server {
            Some(server) => server.bus().await,
            None => self.bus.clone(),
        }
    }

    /// Another connection, as a gateway has it.
    pub async fn gateway_bus(&self) -> Bus {
        match &self.server {
            Some(server) => server.lane_bus().await,
            None => self.bus.clone(),
        }
    }
}

/// Declares each test twice, in `mod embedded` and in `mod nats`: `on_each_bus!(|place| (ARGUMENTS); TESTS)`. The place
/// is there until the test has ended.
macro_rules! on_each_bus {
    (|$place:ident| $arguments:tt; $($test:ident),+ $(,)?) => {
        mod embedded {
            #[allow(unused_imports, reason = "the arguments may need nothing but the place")]
            use super::*;
            $(#[tokio::test]
            async fn $test() {
                let $place = crate::support::place::Place::embedded();
                super::$test $arguments.await;
            })+
        }
        mod nats {
            #[allow(unused_imports, reason = "the arguments may need nothing but the place")]
            use super::*;
            $(#[tokio::test]
            async fn $test() {
                let $place = crate::support::place::Place::nats().await;
                super::$test $arguments.await;
            })+
        }
    };
}
pub(crate) use on_each_bus;

#![doc = include_str!("README.md")]
#![warn(missing_docs, unreachable_pub)]
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::todo,
        clippy::unimplemented,
        clippy::dbg_macro,
        clippy::print_stdout,
        clippy::print_stderr
    )
)]

pub mod bus;
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "commands talk to people")]
pub mod cli;
pub mod config;
pub mod envelope;
pub mod fault;
pub mod gateway;
pub mod limits;
pub mod route;
pub mod schema;
pub mod services;
pub mod snapshot;
pub mod store;
pub mod telemetry;
pub mod transcode;
pub mod worker;
pub mod written;

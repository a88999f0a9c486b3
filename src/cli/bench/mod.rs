//! `tidegate bench`: load on an HTTP address, or on a method over NATS, and what it takes.

mod load;
mod target;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use serde_json::json;

use super::{NatsArgs, TableArgs, runtime};
use crate::fault::Fault;
use crate::written::parse_duration;
use load::{Load, Tally};
use target::Target;

#[derive(Args)]
pub(super) struct BenchArgs {
    /// An address such as http://127.0.0.1:8080/v1/zones/harbour/weather, or a method over NATS: its subject, or
    /// `pkg.Service/Method`.
    target: String,
    /// The request as JSON.
    #[arg(long)]
    json: Option<String>,
    /// HTTP method; POST where there is JSON, else GET.
    #[arg(short = 'X', long, value_name = "METHOD")]
    request: Option<String>,
    /// A header, as `name: value`.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// Ask for streams and read each to its end: the latency is then that of its first event.
    #[arg(long)]
    stream: bool,
    /// Requests at the same time.
    #[arg(short, long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Requests a second, however long answers take: latency counts from the moment at which a request was due. Without
    /// it each connection asks again once it has its answer.
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// How long to measure.
    #[arg(short, long, default_value = "10s", value_parser = length)]
    duration: Duration,
    /// How long to run before that.
    #[arg(long, default_value = "1s", value_parser = length)]
    warm_up: Duration,
    /// Longest wait for an answer.
    #[arg(long, default_value = "30s", value_parser = length)]
    timeout: Duration,
    /// How the result is shown.
    #[arg(long, value_parser = ["text", "json"], default_value = "text")]
    format: String,
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    tables: TableArgs,
}

fn length(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("`{text}` is no duration: expected one such as 10s or 500ms"))
}

/// Exit code 0 where all requests were answered with a success, 1 where one was not.
pub(super) fn run(args: &BenchArgs) -> Result<ExitCode, Fault> {
    let tally = runtime()?.block_on(async {
        let target = Target::new(args).await?;
        let load = Load {
            connections: args.connections.into(),
            rate: args.rate,
            warm_up: args.warm_up,
            duration: args.duration,
            timeout: args.timeout,
        };
        load::run(target, load).await
    })?;
    if args.format == "json" {
        println!("{}", serde_json::to_string_pretty(&as_json(args, &tally)).unwrap_or_default());
    } else {
        show(args, &tally);
    }
    Ok(if tally.failures() == 0 && !tally.latency.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const PERCENTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

fn show(args: &BenchArgs, tally: &Tally) {
    let seconds = args.duration.as_secs_f64();
    let what = if args.stream { "streams" } else { "requests" };
    match args.rate {
        Some(rate) => println!("{rate} {what} a second wanted, at most {} at once", args.connections),
        None => println!("{} connections, each asks again once it has its answer", args.connections),
    }
    let answered = tally.latency.len();
    println!("  {what:10} {answered} in {seconds} s, {:.1} a second", answered as f64 / seconds);
    let latency = if args.stream { "first event" } else { "latency" };
    println!("  {latency:10} {}", percentiles(&tally.latency));
    if args.stream {
        println!("  {:10} {}", "whole", percentiles(&tally.whole));
        println!("  {:10} {}, {:.1} a second", "events", tally.events, tally.events as f64 / seconds);
    }
    println!("  {:10} {}", "bytes", tally.bytes);
    let answers: Vec<String> = tally.answers.iter().map(|(answer, count)| format!("{answer}: {count}")).collect();
    println!("  {:10} {}", "answers", answers.join(", "));
    if tally.unsent > 0 {
        println!("  {:10} {} were due and not sent: all connections waited for answers", "unsent", tally.unsent);
    }
}

fn percentiles(histogram: &Histogram<u64>) -> String {
    let one = |(name, part): (&str, f64)| format!("{name} {:.3} ms", histogram.value_at_quantile(part) as f64 / 1e3);
    PERCENTILES.map(one).join("  ")
}

fn as_json(args: &BenchArgs, tally: &Tally) -> serde_json::Value {
    let seconds = args.duration.as_secs_f64();
    let millis = |histogram: &Histogram<u64>| {
        PERCENTILES
            .iter()
            .map(|(name, part)| (name.to_string(), json!(histogram.value_at_quantile(*part) as f64 / 1e3)))
            .collect::<serde_json::Map<_, _>>()
    };
    let mut report = json!({
        "target": args.target,
        "connections": args.connections,
        "rate_wanted": args.rate,
        "seconds": seconds,
        "answered": tally.latency.len(),
        "rate": tally.latency.len() as f64 / seconds,
        "latency_ms": millis(&tally.latency),
        "bytes": tally.bytes,
        "answers": tally.answers,
        "unsent": tally.unsent,
    });
    if args.stream {
        report["whole_ms"] = millis(&tally.whole).into();
        report["events"] = tally.events.into();
    }
    report
}

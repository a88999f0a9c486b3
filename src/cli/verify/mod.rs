//! `tidegate verify`: edge cases, made from the descriptors, fired at workers over the bus; says what breaks.

mod cases;
mod probe;

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use futures_util::StreamExt as _;
use serde::Serialize;

use super::plain::line;
use super::{NatsArgs, TableArgs, build, connected, runtime};
use crate::bus::Bus;
use crate::fault::{Code, Fault};
use crate::snapshot::{Method, ServiceRow, Snapshot, Streaming};
use cases::{Case, Expect};
use probe::{Probe, SILENT};

/// Cases of a method that are tried at the same time.
const PARALLEL: usize = 8;
/// Cases without an answer after which a method is given up that has not answered anything.
const SILENT_MAX: usize = 4;

#[derive(Args)]
pub(super) struct VerifyArgs {
    /// Services to try, such as `quest-system` or `quest.v1.QuestService`; all that the descriptors have without a name.
    services: Vec<String>,
    /// Time that a worker is given for each request, in seconds.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
    #[command(flatten)]
    caller: CallerArgs,
    /// How findings are shown.
    #[arg(long, value_parser = ["text", "json"], default_value = "text")]
    format: String,
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    tables: TableArgs,
}

/// As whom requests are made.
#[derive(Args)]
struct CallerArgs {
    /// Tenant of the requests. They write: what they leave behind is this tenant's.
    #[arg(long, default_value = "verify")]
    tenant: String,
    /// Roles of the caller, joined by commas.
    #[arg(long, default_value = "")]
    roles: String,
}

impl CallerArgs {
    fn now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Report {
    cases: usize,
    broken: usize,
    methods: Vec<MethodReport>,
}

#[derive(Serialize)]
struct MethodReport {
    service: String,
    method: String,
    subject: String,
    cases: usize,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Finding {
    case: String,
    finding: String,
}

/// Exit code 0 where nothing broke, 1 where something did.
pub(super) fn run(args: &VerifyArgs) -> Result<ExitCode, Fault> {
    let (_, snapshot) = build(args.tables.source()?.as_ref())?;
    let chosen = choose(&snapshot, &args.services)?;
    let is_json = args.format == "json";
    let methods = runtime()?.block_on(async {
        let bus = connected(&args.nats, "tidegate verify", "client").await?;
        let mut reports = Vec::new();
        for (service, method) in chosen {
            let report = verify(&bus, args, &service.short_name, method).await;
            if !is_json {
                show(&report);
            }
            reports.push(report);
        }
        Ok::<_, Fault>(reports)
    })?;
    let cases = methods.iter().map(|method| method.cases).sum();
    let report = Report { cases, broken: methods.iter().map(|method| method.findings.len()).sum(), methods };
    if is_json {
        println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
    } else {
        println!("{} methods, {} cases, {} broken", report.methods.len(), report.cases, report.broken);
    }
    Ok(if report.broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn choose<'s>(snapshot: &'s Snapshot, names: &[String]) -> Result<Vec<(&'s ServiceRow, &'s Method)>, Fault> {
    let has_name = |row: &ServiceRow, name: &str| *row.name == *name || *row.short_name == *name;
    if let Some(unknown) = names.iter().find(|name| !snapshot.services.iter().any(|row| has_name(row, name))) {
        let known: Vec<&str> = snapshot.services.iter().map(|row| &*row.short_name).collect();
        let text = format!("there is no service `{unknown}`: there are {}", known.join(", "));
        return Err(Fault::client(Code::NotFound, text));
    }
    let is_chosen = |row: &&ServiceRow| names.is_empty() || names.iter().any(|name| has_name(row, name));
    let rows = snapshot.services.iter().filter(is_chosen);
    Ok(rows.flat_map(|row| row.methods.iter().map(move |method| (row, &**method))).collect())
}

async fn verify(bus: &Bus, args: &VerifyArgs, service: &str, method: &Method) -> MethodReport {
    let CallerArgs { tenant, roles, .. } = &args.caller;
    let probe = Probe { bus, method, tenant, roles, timeout: Duration::from_secs(args.timeout) };
    let mut note = Notes(MethodReport {
        service: service.to_owned(),
        method: method.name.to_string(),
        subject: method.subject.as_str().to_owned(),
        cases: 0,
        findings: Vec::new(),
    });
    let cases = cases::of(method, &args.caller);
    let is_served = match cases.first() {
        Some(case) => probe.is_served(case).await,
        None => false,
    };
    if !is_served {
        note.result("usual values", Err("nobody takes requests on the subject".to_owned()));
        return note.0;
    }
    let tries = cases.iter().map(|case| try_case(&probe, case));
    let mut tries = std::pin::pin!(futures_util::stream::iter(tries).buffered(PARALLEL));
    while let Some(results) = tries.next().await {
        for (case, result) in results {
            note.result(&case, result);
        }
        if note.is_silent() {
            note.result("everything else", Err(format!("not tried after {SILENT_MAX} cases without an answer")));
            return note.0;
        }
    }
    if let (true, Some(case)) = (method.streaming != Streaming::Unary, cases.first()) {
        note.result("as a stream: credit for one chunk, then a cancel", probe.credit_and_cancel(case).await);
    }
    note.0
}

/// What a method did.
struct Notes(MethodReport);

impl Notes {
    fn result(&mut self, case: &str, result: Result<(), String>) {
        self.0.cases += 1;
        if let Err(finding) = result {
            self.0.findings.push(Finding { case: case.to_owned(), finding });
        }
    }

    /// True where nobody has answered at all.
    fn is_silent(&self) -> bool {
        self.0.cases == SILENT_MAX
            && self.0.findings.iter().filter(|row| row.finding.starts_with(SILENT)).count() == SILENT_MAX
    }
}

/// A case in each form that the method takes.
async fn try_case(probe: &Probe<'_>, case: &Case) -> Vec<(String, Result<(), String>)> {
    let mut results = Vec::new();
    let asks_for_stream = probe.method.envelope.wants_stream(&case.payload);
    if probe.method.streaming != Streaming::Server && !asks_for_stream {
        results.push((case.name.clone(), probe.unary(case).await));
    }
    // A key says what a stream repeats, which is no matter of its bytes.
    if probe.method.streaming != Streaming::Unary && case.expect != Expect::Twice {
        results.push((format!("as a stream: {}", case.name), probe.stream(case).await));
    }
    results
}

fn show(report: &MethodReport) {
    let verdict = if report.findings.is_empty() { "ok" } else { "BROKEN" };
    println!("{verdict:6} {} ({}, {} cases)", report.method, report.service, report.cases);
    for finding in &report.findings {
        println!("       {}: {}", finding.case, line(&finding.finding));
    }
}

//! `tidegate call`: one request by hand, through the same tables as the gateway's.

use std::time::Duration;

use clap::Args;

use super::{NatsArgs, TableArgs, build, connected, runtime};
use crate::bus::{Headers, Request};
use crate::fault::{Code, Fault};
use crate::transcode::{BodyPlan, Claims, JsonIn, JsonOut, Names, Root, Scratch, json_to_wire, wire_to_json};

#[derive(Args)]
pub(super) struct CallArgs {
    /// Subject, or method as `pkg.Service/Method`.
    subject: String,
    /// The request as JSON.
    #[arg(default_value = "{}")]
    json: String,
    /// Longest wait for the reply, in seconds.
    #[arg(long, default_value_t = 30)]
    timeout: u64,
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    tables: TableArgs,
}

/// Fails with the worker's own error, whose reply is printed all the same.
pub(super) fn run(args: &CallArgs) -> Result<(), Fault> {
    let (_, snapshot) = build(args.tables.source()?.as_ref())?;
    let found = snapshot.method(&args.subject).or_else(|| snapshot.method_on(&args.subject));
    let method = found.ok_or_else(|| {
        Fault::client(
            Code::NotFound,
            format!("the tables have no method or subject `{}`: see `tidegate routes`", args.subject),
        )
    })?;
    let mut payload = Vec::new();
    let plan =
        BodyPlan { root: Root::Message(method.request), options: JsonIn::default(), claims: Claims::new(), lift: None };
    json_to_wire(&method.tables, &plan, 0, args.json.as_bytes(), &mut payload, None)
        .map_err(|error| Fault::client(Code::InvalidArgument, format!("the request does not fit: {error}")))?;
    let reply = runtime()?.block_on(async {
        let bus = connected(&args.nats, "tidegate call", "client").await?;
        let request = Request {
            subject: method.subject.clone(),
            headers: Headers::new(),
            payload: payload.into(),
            timeout: Duration::from_secs(args.timeout),
            proof: None,
        };
        Ok::<_, Fault>(bus.request(request).await?)
    })?;
    let opened =
        method.envelope.open_reply(&method.tables, method.reply, |name| reply.headers.get(name), &reply.payload);
    if opened.is_err() && reply.payload.is_empty() {
        return opened;
    }
    let options = JsonOut { names: Names::Proto, ..JsonOut::default() };
    let mut json = Vec::new();
    wire_to_json(&method.tables, method.reply, &options, &reply.payload, &mut Scratch::default(), &mut json)
        .map_err(|error| Fault::upstream(Code::Internal, format!("the reply does not decode: {error}")))?;
    let value: serde_json::Value = serde_json::from_slice(&json).unwrap_or_default();
    println!("{}", serde_json::to_string_pretty(&value).unwrap_or_default());
    opened
}

//! Services, methods and their options as plain rows.

use std::sync::Arc;

use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, ReflectMessage as _, ServiceDescriptor, Value};

use super::SchemaProblem;
use super::elements::Elements;
use super::operation::{self, DocumentKind, LogRow, Operation};
use crate::transcode::{MessageId, Tables};

/// A service of the schema.
#[derive(Clone, Debug)]
pub struct ServiceRow {
    /// Full name, `quest.v1.QuestService`.
    pub name: String,
    /// Name in discovery and logs, `quest-system`.
    pub short_name: String,
    /// Queue group of its workers.
    pub queue_group: String,
    /// Its methods.
    pub methods: Vec<MethodRow>,
    /// The logs that it declares.
    pub logs: Vec<LogRow>,
}

/// A method of a service.
#[derive(Clone, Debug)]
pub struct MethodRow {
    /// Full name, `quest.v1.QuestService/GenerateQuest`.
    pub name: String,
    /// Subject of its requests.
    pub subject: String,
    /// Request message.
    pub request: MessageId,
    /// Reply message.
    pub reply: MessageId,
    /// Message of chunks, where a request can ask for a stream.
    pub chunk: Option<MessageId>,
    /// It answers with a stream.
    pub is_server_streaming: bool,
    /// It takes a stream, which no route can give it.
    pub is_client_streaming: bool,
    /// Its `google.api.http` bindings, additional ones behind the first.
    pub http: Vec<HttpRuleRow>,
    /// What it does, where it is declared.
    pub operation: Option<Arc<Operation>>,
    /// Calling it twice does what calling it once does: its `idempotency_level` says so, or its first binding is a GET.
    pub is_repeatable: bool,
    /// It changes nothing.
    pub is_read: bool,
    /// `file:line:column` of the method.
    pub place: String,
}

/// One HTTP binding as the schema declares it.
#[derive(Clone, Debug, Default)]
pub struct HttpRuleRow {
    /// Method in upper case.
    pub verb: String,
    /// Path template.
    pub path: String,
    /// `*`, a field, or empty.
    pub body: String,
    /// A field, or empty.
    pub response_body: String,
    /// Constant fields: path and value.
    pub presets: Vec<(String, String)>,
    /// Header and field that it fills.
    pub headers_in: Vec<(String, String)>,
    /// Field and header that it fills.
    pub headers_out: Vec<(String, String)>,
}

/// The rows of every service in the pool.
pub(super) fn rows(
    pool: &DescriptorPool,
    tables: &Tables,
    elements: &Elements,
) -> Result<Vec<ServiceRow>, Vec<SchemaProblem>> {
    let (mut problems, of) = (Vec::new(), Of { pool, tables, elements });
    let rows = pool.services().map(|service| service_row(of, &service, &mut problems)).collect();
    if problems.is_empty() { Ok(rows) } else { Err(problems) }
}

/// What a row is read out of.
#[derive(Clone, Copy)]
struct Of<'s> {
    pool: &'s DescriptorPool,
    tables: &'s Tables,
    elements: &'s Elements,
}

fn service_row(of: Of<'_>, service: &ServiceDescriptor, problems: &mut Vec<SchemaProblem>) -> ServiceRow {
    let Of { pool, tables, elements } = of;
    let rule = extension(pool, &service.options(), "tidegate.service");
    let given = |name: &str| rule.as_ref().map(|rule| text(rule, name)).filter(|text| !text.is_empty());
    let short_name = given("name").unwrap_or_else(|| service.name().to_owned());
    let options = service.options();
    let (kinds, wrong) = operation::documents(tables, &extensions(pool, &options, "tidegate.document"));
    let place = elements.place(&service.parent_file(), service.path());
    problems.extend(wrong.into_iter().map(|text| {
        let text = format!("service `{}`: {text}", service.full_name());
        SchemaProblem::at(&place, text)
    }));
    ServiceRow {
        name: service.full_name().to_owned(),
        queue_group: given("queue_group").unwrap_or_else(|| format!("q.{short_name}")),
        short_name,
        methods: service.methods().map(|method| method_row(of, &kinds, &method, problems)).collect(),
        logs: operation::logs(&extensions(pool, &options, "tidegate.log")),
    }
}

fn method_row(
    of: Of<'_>,
    kinds: &[Arc<DocumentKind>],
    method: &MethodDescriptor,
    problems: &mut Vec<SchemaProblem>,
) -> MethodRow {
    let Of { pool, tables, elements } = of;
    let place = elements.place(&method.parent_service().parent_file(), method.path());
    let mut problem = |text: String| problems.push(SchemaProblem::at(&place, text));
    let options = method.options();
    let rule = extension(pool, &options, "tidegate.method");
    let given = |name: &str| rule.as_ref().map(|rule| text(rule, name)).filter(|text| !text.is_empty());
    let service = method.parent_service();
    let chunk = given("chunk").and_then(|name| {
        let id = tables.message_id(&name);
        if id.is_none() {
            problem(format!("`chunk` of `{}`: the schema has no message `{name}`", method.full_name()));
        }
        id
    });
    let mut id = |name: &str| {
        tables.message_id(name).unwrap_or_else(|| {
            problem(format!("the schema has no message `{name}`"));
            MessageId(0)
        })
    };
    let (request, reply) = (id(method.input().full_name()), id(method.output().full_name()));
    let declared = extension(pool, &options, "tidegate.operation").and_then(|rule| {
        let is_streaming = method.is_server_streaming();
        let around = operation::Around { tables, kinds, request, reply, is_streaming };
        operation::operation(&around, &rule).map_err(&mut problem).ok()
    });
    let http = http_rules(pool, &options);
    // NO_SIDE_EFFECTS is 1 and IDEMPOTENT 2 (google/protobuf/descriptor.proto).
    let level = options.get_field_by_name("idempotency_level").and_then(|value| value.as_enum_number()).unwrap_or(0);
    MethodRow {
        name: format!("{}/{}", service.full_name(), method.name()),
        subject: given("subject").unwrap_or_else(|| method.full_name().to_owned()),
        request,
        reply,
        operation: declared.map(Arc::new),
        chunk,
        is_server_streaming: method.is_server_streaming(),
        is_client_streaming: method.is_client_streaming(),
        is_read: level == 1 || http.first().is_some_and(|rule| rule.verb == "GET"),
        is_repeatable: level > 0 || http.first().is_some_and(|rule| rule.verb == "GET"),
        http,
        place: place.to_string(),
    }
}

fn extension(pool: &DescriptorPool, options: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    let extension = pool.get_extension_by_name(name)?;
    match options.has_extension(&extension).then(|| options.get_extension(&extension))?.as_ref() {
        Value::Message(message) => Some(message.clone()),
        _ => None,
    }
}

/// The values of a repeated extension.
fn extensions(pool: &DescriptorPool, options: &DynamicMessage, name: &str) -> Vec<DynamicMessage> {
    let Some(extension) = pool.get_extension_by_name(name).filter(|it| options.has_extension(it)) else {
        return Vec::new();
    };
    let value = options.get_extension(&extension);
    let items = value.as_list().unwrap_or_default();
    items.iter().filter_map(|item| item.as_message().cloned()).collect()
}

fn text(message: &DynamicMessage, name: &str) -> String {
    message.get_field_by_name(name).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn list(message: &DynamicMessage, name: &str) -> Vec<DynamicMessage> {
    let value = message.get_field_by_name(name);
    let items = value.as_ref().and_then(|value| value.as_list()).unwrap_or_default();
    items.iter().filter_map(|item| item.as_message().cloned()).collect()
}

fn http_rules(pool: &DescriptorPool, options: &DynamicMessage) -> Vec<HttpRuleRow> {
    let Some(rule) = extension(pool, options, "google.api.http") else { return Vec::new() };
    let mut rows = Vec::new();
    rows.extend(http_rule(&rule));
    rows.extend(list(&rule, "additional_bindings").iter().filter_map(http_rule));
    for addition in &extensions(pool, options, "tidegate.binding") {
        let index = addition.get_field_by_name("index").and_then(|value| value.as_i32()).unwrap_or(0);
        for (at, row) in rows.iter_mut().enumerate() {
            if index == -1 || index == at as i32 {
                add(row, addition);
            }
        }
    }
    rows
}

fn add(row: &mut HttpRuleRow, addition: &DynamicMessage) {
    let pairs = |name: &str, first: &str, second: &str| -> Vec<(String, String)> {
        list(addition, name).iter().map(|item| (text(item, first), text(item, second))).collect()
    };
    row.presets.extend(pairs("preset", "field", "value"));
    row.headers_in.extend(pairs("header_in", "header", "field"));
    row.headers_out.extend(pairs("header_out", "field", "header"));
}

fn http_rule(rule: &DynamicMessage) -> Option<HttpRuleRow> {
    let row = |verb: &str, path: String| HttpRuleRow {
        verb: verb.to_owned(),
        path,
        body: text(rule, "body"),
        response_body: text(rule, "response_body"),
        ..HttpRuleRow::default()
    };
    for verb in ["get", "put", "post", "delete", "patch"] {
        if rule.has_field_by_name(verb) {
            return Some(row(&verb.to_ascii_uppercase(), text(rule, verb)));
        }
    }
    let custom = rule.get_field_by_name("custom").filter(|_| rule.has_field_by_name("custom"))?;
    let custom = custom.as_message()?;
    debug_assert_eq!(custom.descriptor().name(), "CustomHttpPattern");
    Some(row(&text(custom, "kind").to_ascii_uppercase(), text(custom, "path")))
}

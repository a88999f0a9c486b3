//! Manifest and schema → snapshot, or every problem at once. Pure: no file, no clock, no task.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::manifest::{At, Manifest, PolicyRow, RouteRow};
use super::methods::MethodParts;
use super::policy::Reader;
use super::problem::{Place, Problem};
use super::{Api, ErrorStyle, Method, Route, ServiceRow, Snapshot, Streaming};
use crate::envelope::Style;
use crate::limits::Slots;
use crate::route::{Binding, Body, HttpRule, Lookup, PathTemplate, RouteId, Segments, Tree};
use crate::schema::Schema;
use crate::telemetry::RouteMetrics;
use crate::transcode::FieldId;
use crate::written::did_you_mean;

/// Most open streams of a process where the file does not say.
const OPEN_STREAMS: usize = 10_000;
/// Verbs that a row may name.
const VERBS: [&str; 7] = ["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "*"];

/// Builds a snapshot; `previous` gives unchanged limits their state.
pub fn build(
    file: &str,
    manifest: &Manifest,
    schema: &Schema,
    previous: Option<&Snapshot>,
) -> Result<Snapshot, Vec<Problem>> {
    let mut reader = Reader::new(file, previous);
    if let Some(version) = manifest.version.as_ref().filter(|version| version.value != 1) {
        reader.problem(version.place, format!("version {}: this program reads version 1", version.value));
    }
    let styles = super::styles::styles(manifest, &mut reader);
    let error_style = manifest.errors.as_ref().map_or(ErrorStyle::default(), |name| reader.error_style(name));
    let cors = manifest.defaults.cors.as_ref().and_then(|row| reader.cors(row));
    let mut builder = Builder {
        manifest,
        schema,
        styles,
        reader,
        methods: BTreeMap::new(),
        routes: Vec::new(),
        tree: Tree::default(),
        by_id: HashMap::new(),
        is_discovering: false,
        left_out: Vec::new(),
    };
    builder.credential();
    builder.shared_policies();
    builder.annotations();
    builder.rows();
    builder.discovered();
    builder.unknown_methods();
    builder.declared_logs();
    builder.api_path();
    let open_streams = manifest.open_streams.as_ref().map_or(OPEN_STREAMS, |max| max.value);
    let stream_slots =
        previous.map(|snapshot| snapshot.stream_slots.clone()).filter(|slots| slots.max() == open_streams);
    let credential = builder.reader.credential;
    let mut problems = builder.reader.problems;
    if !problems.is_empty() {
        problems.sort_by(|a, b| {
            let key = |problem: &Problem| (problem.place.line, problem.place.column);
            (&a.place.file, key(a), &a.message).cmp(&(&b.place.file, key(b), &b.message))
        });
        problems.dedup();
        return Err(problems);
    }
    let (methods, left_out) = (builder.methods, builder.left_out);
    Ok(Snapshot {
        generation: previous.map_or(1, |snapshot| snapshot.generation + 1),
        tables: schema.tables.clone(),
        tree: builder.tree,
        routes: builder.routes,
        services: services(schema, &methods),
        methods: methods.into_values().collect(),
        described: schema.services.iter().flat_map(|row| &row.methods).map(|row| row.name.as_str().into()).collect(),
        docs: schema.docs.clone(),
        api: Api::new(&manifest.openapi),
        left_out,
        credential,
        error_style,
        cors,
        stream_slots: stream_slots.unwrap_or_else(|| Slots::new(open_streams)),
    })
}

fn services(schema: &Schema, methods: &BTreeMap<String, Arc<Method>>) -> Vec<ServiceRow> {
    let mut rows: Vec<ServiceRow> = Vec::new();
    for service in &schema.services {
        let own: Vec<_> = service.methods.iter().filter_map(|row| methods.get(&row.name).cloned()).collect();
        if !own.is_empty() {
            let (name, short_name) = (service.name.as_str().into(), service.short_name.as_str().into());
            rows.push(ServiceRow { name, short_name, methods: own, logs: service.logs.clone() });
        }
    }
    rows
}

pub(super) struct Builder<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) schema: &'a Schema,
    pub(super) styles: BTreeMap<String, Arc<Style>>,
    pub(super) reader: Reader<'a>,
    pub(super) methods: BTreeMap<String, Arc<Method>>,
    routes: Vec<Arc<Route>>,
    pub(super) tree: Tree,
    pub(super) by_id: HashMap<RouteId, String>,
    /// Routes of workers: they give way to all that are there already.
    pub(super) is_discovering: bool,
    left_out: Vec<Problem>,
}

/// One route on its way into the table.
pub(super) struct NewRoute<'r> {
    pub(super) rule: HttpRule,
    pub(super) headers_out: &'r [(String, String)],
    pub(super) method: Arc<Method>,
    pub(super) is_stream: bool,
    pub(super) levels: Vec<&'r PolicyRow>,
    pub(super) place: Place,
}

impl<'a> Builder<'a> {
    /// Reads policies that routes share once by themselves, so that a mistake in them is shown even where the routes
    /// below them have mistakes of their own.
    fn shared_policies(&mut self) {
        let manifest = self.manifest;
        let annotations = manifest.annotations.iter().map(|row| &row.value.policies);
        let groups = manifest.groups.iter().map(|row| &row.value.policies);
        let methods = manifest.methods.values().map(|row| &row.value);
        for level in std::iter::once(&manifest.defaults).chain(annotations).chain(groups).chain(methods) {
            self.reader.policies("", "", &[level]);
            self.style(&[level]);
        }
    }

    /// Routes written in the file.
    fn rows(&mut self) {
        let manifest = self.manifest;
        for row in &manifest.routes {
            self.row(row, "", &[]);
        }
        for group in &manifest.groups {
            let prefix = group.value.prefix.as_deref().unwrap_or_default();
            for row in &group.value.routes {
                self.row(row, prefix, &[&group.value.policies]);
            }
        }
    }

    fn row(&mut self, row: &'a At<RouteRow>, prefix: &str, around: &[&'a PolicyRow]) {
        let RouteRow { route, call, subject, .. } = &row.value;
        let Some((verb, path)) = route.value.split_once(' ') else {
            return self
                .reader
                .problem(route.place, "expected a method and a path, such as `GET /v1/quests/{quest_id}`");
        };
        if !VERBS.contains(&verb) {
            return self.reader.problem(route.place, format!("`{verb}`: expected one of {}", VERBS.join(", ")));
        }
        let own = call.as_ref().and_then(|call| self.manifest.methods.get(&call.value)).map(|row| &row.value);
        let mut levels = vec![&row.value.policies];
        levels.extend(own);
        levels.extend(around);
        levels.push(&self.manifest.defaults);
        let found = match (call, subject) {
            (Some(call), None) => self.called(call, &levels),
            (None, Some(subject)) => self.declared(subject, row, &levels),
            _ => {
                return self
                    .reader
                    .problem(route.place, "a route has either `call` or `subject` with `request` and `reply`");
            }
        };
        let Some((method, is_stream)) = found else { return };
        let headers_out: Vec<(String, String)> =
            row.value.headers_out.iter().map(|(field, header)| (field.clone(), header.clone())).collect();
        self.add(NewRoute {
            rule: HttpRule {
                verb: verb.to_owned(),
                template: format!("{prefix}{}", path.trim()),
                body: body(row.value.body.as_ref().map_or("", |body| &body.value)),
                response_body: row.value.response_body.as_ref().map(|field| field.value.clone()),
                presets: row.value.presets.clone().into_iter().collect(),
                headers: row.value.headers_in.clone().into_iter().collect(),
            },
            headers_out: &headers_out,
            method,
            is_stream,
            levels,
            place: Place::new(self.reader.file, route.place.0, route.place.1),
        });
    }

    /// A method of the descriptors by name.
    pub(super) fn called(&mut self, call: &At<String>, levels: &[&PolicyRow]) -> Option<(Arc<Method>, bool)> {
        let schema = self.schema;
        for service in &schema.services {
            if let Some(row) = service.methods.iter().find(|row| row.name == call.value) {
                return Some((self.method(row, &service.queue_group, levels)?, row.is_server_streaming));
            }
        }
        let names: Vec<&str> = schema.services.iter().flat_map(|s| &s.methods).map(|m| m.name.as_str()).collect();
        let place = Place::new(self.reader.file, call.place.0, call.place.1);
        let text = format!("the descriptors have no method `{}`", call.value);
        self.reader.problems.push(Problem::new(place, text).hint(did_you_mean(&call.value, &names)));
        None
    }

    /// A method that the row itself declares.
    fn declared(
        &mut self,
        subject: &At<String>,
        row: &At<RouteRow>,
        levels: &[&PolicyRow],
    ) -> Option<(Arc<Method>, bool)> {
        let (Some(request), Some(reply)) = (&row.value.request, &row.value.reply) else {
            self.reader.problem(subject.place, "a route with `subject` names its `request` and `reply` messages");
            return None;
        };
        let request = self.message(request);
        let reply = self.message(reply);
        let chunk = match &row.value.chunk {
            Some(name) => Some(self.message(name)?),
            None => None,
        };
        let streaming = if chunk.is_some() { Streaming::Server } else { Streaming::Unary };
        let name = format!("{} {}", row.value.route.value, subject.value);
        let place = Place::new(self.reader.file, subject.place.0, subject.place.1);
        let parts = MethodParts {
            name,
            subject: &subject.value,
            queue_group: None,
            request: request?,
            reply: reply?,
            chunk,
            streaming,
            is_repeatable: row.value.route.value.starts_with("GET "),
            is_read: row.value.route.value.starts_with("GET "),
            operation: None,
        };
        Some((self.make_method(parts, place, levels)?, chunk.is_some()))
    }

    /// Compiles a route and puts it into the tree.
    pub(super) fn add(&mut self, new: NewRoute<'_>) {
        let name = format!("{} {}", new.rule.verb, new.rule.template);
        let (policies, json_in) = self.reader.policies(&name, new.method.subject.as_str(), &new.levels);
        let tables = &self.schema.tables;
        let (context, style) = (&new.method.envelope.context, &new.method.envelope.style);
        let compiled = Binding::compile(
            tables,
            new.method.request,
            &new.rule,
            context.as_ref().map(|context| &context.path),
            style.body_member(),
            json_in,
        );
        let (template, binding) = match compiled {
            Ok(compiled) => compiled,
            Err(error) => {
                let text = match error.template_column {
                    Some(column) => format!("`{}`, column {column}: {}", new.rule.template, error.text),
                    None => format!("`{name}`: {}", error.text),
                };
                return self.reader.problems.push(Problem::new(new.place, text));
            }
        };
        let response_body = new.rule.response_body.as_ref().map(|field| self.reply_field(&new, field));
        let headers_out = self.headers_out(&new);
        if response_body == Some(None) {
            return;
        }
        let response_body = response_body.flatten();
        let migration = self.migration(&name, &new);
        let id = RouteId(self.routes.len() as u32);
        if !self.insert(&name, &new, &template, id) {
            return;
        }
        self.routes.push(Arc::new(Route {
            id,
            verb: new.rule.verb.as_str().into(),
            template: new.rule.template.as_str().into(),
            is_raw: new.method.replies_raw(response_body),
            method: new.method,
            is_stream: new.is_stream,
            binding,
            response_body,
            headers_out,
            policies,
            migration,
            metrics: RouteMetrics::new(&new.rule.verb, &new.rule.template),
            defined_at: new.place.to_string(),
            is_discovered: self.is_discovering,
        }));
    }

    fn insert(&mut self, name: &str, new: &NewRoute<'_>, template: &PathTemplate, id: RouteId) -> bool {
        let taken = if self.is_discovering { self.already_taken(&new.rule.verb, template) } else { None };
        let inserted = match taken {
            Some(with) => Err(with),
            None => self.tree.insert(&new.rule.verb, template, id).map_err(|conflict| conflict.with),
        };
        match inserted {
            Ok(()) => {
                self.by_id.insert(id, format!("`{name}` ({})", new.place));
                true
            }
            Err(with) => {
                let other = self.by_id.get(&with).cloned().unwrap_or_default();
                let text = format!("`{name}` takes the same requests as {other}");
                let problem = Problem::new(new.place.clone(), text);
                match self.is_discovering {
                    true => self.left_out.push(problem.hint("the worker's route gives way")),
                    false => self.reader.problems.push(problem.hint("remove one of the two")),
                }
                false
            }
        }
    }

    /// The route of the table's own that takes an example of these requests: a narrower template of a worker's, such as
    /// `/players/p1` below `/players/{id}`, would take them away from it.
    fn already_taken(&self, verb: &str, template: &PathTemplate) -> Option<RouteId> {
        let path = template.example();
        let segments = Segments::split(&path)?;
        let verbs: &[&str] =
            if verb == "*" { &["GET", "POST", "PUT", "PATCH", "DELETE"] } else { std::slice::from_ref(&verb) };
        let found = verbs.iter().find_map(|verb| match self.tree.find(verb, &path, &segments) {
            Lookup::Found(id) => Some(id),
            Lookup::WrongVerb(_) | Lookup::Missing => None,
        })?;
        self.routes.iter().find(|route| route.id == found && !route.is_discovered).map(|route| route.id)
    }

    fn reply_field(&mut self, new: &NewRoute<'_>, name: &str) -> Option<FieldId> {
        let table = self.schema.tables.message(new.method.reply);
        let found = table.field_by_name(name.as_bytes());
        if found.is_none() {
            let text = format!("`{}` has no field `{name}`", table.name);
            self.reader.problems.push(Problem::new(new.place.clone(), text));
        }
        found
    }

    fn headers_out(&mut self, new: &NewRoute<'_>) -> Vec<(FieldId, http::HeaderName)> {
        let mut headers = Vec::new();
        for (field, header) in new.headers_out {
            let name = http::HeaderName::from_bytes(header.to_ascii_lowercase().as_bytes());
            if name.is_err() {
                let text = format!("`{header}` is no header name");
                self.reader.problems.push(Problem::new(new.place.clone(), text));
            }
            if let (Some(field), Ok(name)) = (self.reply_field(new, field), name) {
                headers.push((field, name));
            }
        }
        headers
    }

    /// Policies of methods that do not exist.
    fn unknown_methods(&mut self) {
        let manifest = self.manifest;
        for (name, row) in &manifest.methods {
            if !self.methods.contains_key(name) {
                let names: Vec<&str> = self.methods.keys().map(String::as_str).collect();
                let hint = did_you_mean(name, &names);
                let place = Place::new(self.reader.file, row.place.0, row.place.1);
                let text = format!("no route leads to a method `{name}`");
                self.reader.problems.push(Problem::new(place, text).hint(hint));
            }
        }
    }
}

pub(super) fn body(text: &str) -> Body {
    match text {
        "" => Body::None,
        "*" => Body::All,
        field => Body::Field(field.to_owned()),
    }
}

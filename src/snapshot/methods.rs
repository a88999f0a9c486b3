//! Methods of the descriptors and of single rows, made once each.

use std::sync::Arc;

use super::build::Builder;
use super::manifest::{At, PolicyRow};
use super::problem::{Place, Problem};
use super::{Method, ReplyProof, Streaming};
use crate::bus::{Headers, Pattern, Subject};
use crate::envelope::{Envelope, Style};
use crate::schema::MethodRow;
use crate::schema::operation::Operation;
use crate::telemetry::SubjectMetrics;
use crate::transcode::MessageId;
use crate::written::did_you_mean;

/// True for subjects that no route may reach: what begins with `$` is the server's own (`$SYS`, `$JS`, `$SRV`, `$KV`),
/// what is below `_INBOX` somebody's replies.
fn is_reserved(subject: &str) -> bool {
    subject.starts_with('$') || subject.split('.').next() == Some("_INBOX")
}

/// What a method is made of.
pub(super) struct MethodParts<'r> {
    pub(super) name: String,
    pub(super) subject: &'r str,
    pub(super) queue_group: Option<&'r str>,
    pub(super) request: MessageId,
    pub(super) reply: MessageId,
    pub(super) chunk: Option<MessageId>,
    pub(super) streaming: Streaming,
    pub(super) is_repeatable: bool,
    pub(super) is_read: bool,
    pub(super) operation: Option<Arc<Operation>>,
}

impl Builder<'_> {
    pub(super) fn message(&mut self, name: &At<String>) -> Option<MessageId> {
        let found = self.schema.tables.message_id(&name.value);
        if found.is_none() {
            let names: Vec<&str> = self.schema.tables.messages().map(|(_, table)| &*table.name).collect();
            let hint = did_you_mean(&name.value, &names);
            let place = Place::new(self.reader.file, name.place.0, name.place.1);
            let text = format!("the descriptors have no message `{}`", name.value);
            self.reader.problems.push(Problem::new(place, text).hint(hint));
        }
        found
    }

    /// A method of the descriptors, made once.
    pub(super) fn method(&mut self, row: &MethodRow, queue_group: &str, levels: &[&PolicyRow]) -> Option<Arc<Method>> {
        if let Some(known) = self.methods.get(&row.name) {
            return Some(known.clone());
        }
        let place = place_of(&row.place);
        if row.is_client_streaming {
            let text = format!("`{}` takes a stream, which one HTTP request cannot give it", row.name);
            self.reader.problems.push(Problem::new(place, text));
            return None;
        }
        let streaming = match (row.is_server_streaming, row.chunk) {
            (true, _) => Streaming::Server,
            (false, Some(_)) => Streaming::OnRequest,
            (false, None) => Streaming::Unary,
        };
        let parts = MethodParts {
            name: row.name.clone(),
            subject: &row.subject,
            queue_group: Some(queue_group),
            request: row.request,
            reply: row.reply,
            chunk: row.chunk,
            streaming,
            is_repeatable: row.is_repeatable,
            is_read: row.is_read,
            operation: row.operation.clone(),
        };
        self.make_method(parts, place, levels)
    }

    pub(super) fn make_method(
        &mut self,
        parts: MethodParts,
        place: Place,
        levels: &[&PolicyRow],
    ) -> Option<Arc<Method>> {
        let name = parts.name.clone();
        let method = self.compiled(parts, place, levels)?;
        self.methods.insert(name, method.clone());
        Some(method)
    }

    /// A method that is in no list.
    pub(super) fn compiled(&mut self, parts: MethodParts, place: Place, levels: &[&PolicyRow]) -> Option<Arc<Method>> {
        let style = self.style(levels)?;
        let tables = &self.schema.tables;
        let subject = match Subject::new(parts.subject) {
            Ok(subject) if is_reserved(parts.subject) => {
                let text = format!("the subject `{subject}` belongs to the NATS server: a route cannot reach it");
                self.reader.problems.push(Problem::new(place, text));
                return None;
            }
            Ok(subject) => subject,
            Err(error) => {
                self.reader.problems.push(Problem::new(place, error.to_string()));
                return None;
            }
        };
        let envelope = Envelope::compile(tables, &style, parts.request, parts.reply, parts.chunk);
        let envelope = match envelope {
            Ok(envelope) => envelope,
            Err(error) => {
                self.reader.problems.push(Problem::new(place, error.0));
                return None;
            }
        };
        let chunk = parts.chunk.unwrap_or(parts.reply);
        let name_of = |id: MessageId| tables.message(id).name.clone();
        let mut request_headers = Headers::with_capacity(2);
        request_headers.push("content-type", "application/x-protobuf");
        request_headers.push("message-type", name_of(parts.request));
        Some(Arc::new(Method {
            name: parts.name.as_str().into(),
            metrics: SubjectMetrics::new(subject.as_str()),
            subject,
            queue_group: parts.queue_group.map(Into::into),
            request: parts.request,
            request_name: name_of(parts.request),
            request_headers,
            reply: parts.reply,
            reply_name: name_of(parts.reply),
            chunk,
            chunk_name: name_of(chunk),
            streaming: parts.streaming,
            envelope,
            replies: ReplyProof::default(),
            is_repeatable: parts.is_repeatable,
            is_read: parts.is_read,
            operation: parts.operation,
            tables: tables.clone(),
        }))
    }

    /// Logs must not take requests: a log on NATS acknowledges all that it takes, and the caller would read that as the
    /// reply.
    pub(super) fn declared_logs(&mut self) {
        for service in &self.schema.services {
            let Some(place) = service.methods.first().map(|method| place_of(&method.place)) else { continue };
            for log in &service.logs {
                for subject in &log.subjects {
                    let pattern = match Pattern::new(subject.as_str()) {
                        Ok(pattern) => pattern,
                        Err(error) => {
                            self.reader.problems.push(Problem::new(place.clone(), error.to_string()));
                            continue;
                        }
                    };
                    let taken = self.methods.values().find(|method| pattern.matches(method.subject.as_str()));
                    if let Some(method) = taken {
                        let text = format!(
                            "log `{}` takes `{subject}`, and with it the requests of `{}`",
                            log.name, method.name
                        );
                        let hint = format!("requests go to `{}`: give events another beginning", method.subject);
                        self.reader.problems.push(Problem::new(place.clone(), text).hint(hint));
                    }
                }
            }
        }
    }

    pub(super) fn style(&mut self, levels: &[&PolicyRow]) -> Option<Arc<Style>> {
        let name = levels.iter().find_map(|level| level.style.as_ref());
        let wanted = name.map_or("plain", |name| &name.value);
        let found = self.styles.get(wanted).cloned();
        if let (None, Some(name)) = (&found, name) {
            let names: Vec<&str> = self.styles.keys().map(String::as_str).collect();
            let hint = did_you_mean(wanted, &names);
            let place = Place::new(self.reader.file, name.place.0, name.place.1);
            self.reader.problems.push(Problem::new(place, format!("there is no style `{wanted}`")).hint(hint));
        }
        found
    }
}

/// `file:line:column` taken apart.
pub(super) fn place_of(text: &str) -> Place {
    let mut parts = text.rsplitn(3, ':');
    let column = parts.next().and_then(|part| part.parse().ok()).unwrap_or(1);
    let line = parts.next().and_then(|part| part.parse().ok()).unwrap_or(1);
    Place::new(parts.next().unwrap_or(text), line, column)
}

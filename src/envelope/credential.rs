//! How a method checks a credential: which field of its request takes the token, and which fields of its reply say
//! whose it is. Names become field numbers once; what is not of the right kind is told there.

use crate::transcode::table::{Cardinality, Kind};
use crate::transcode::wire::{each_message, put_bytes, scalar_text};
use crate::transcode::{FieldPath, MessageId, Tables};

use super::reply::pair;

/// The fields by name, as declared.
#[derive(Clone, Copy, Debug)]
pub struct CredentialFields<'d> {
    /// Text field of the request.
    pub token: &'d str,
    /// Boolean field of the reply.
    pub valid: &'d str,
    /// Text field of the reply.
    pub user: &'d str,
    /// Text field of the reply, or an entry of a map of texts: `data[tenant_id]`.
    pub tenant: Option<&'d str>,
    /// Text field of the reply, single or repeated, or an entry of a map of texts.
    pub roles: Option<&'d str>,
    /// Number field of the reply: milliseconds since 1970.
    pub expires: Option<&'d str>,
}

/// Whose a credential is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The user.
    pub user: String,
    /// The tenant; empty where the credential names none.
    pub tenant: String,
    /// The roles, joined by commas; empty where the credential names none.
    pub roles: String,
    /// When it ends, in milliseconds since 1970; `None` where the reply does not say.
    pub expires_at_ms: Option<u64>,
}

/// The check of a credential, compiled.
#[derive(Debug)]
pub struct CredentialPlan {
    /// Field numbers down to the token.
    token: Vec<u32>,
    valid: ReplyField,
    user: ReplyField,
    tenant: Option<ReplyField>,
    roles: Option<ReplyField>,
    expires: Option<ReplyField>,
}

/// A field of the reply.
#[derive(Debug)]
pub(super) struct ReplyField {
    /// Numbers of the messages around it.
    around: Vec<u32>,
    number: u32,
    form: Form,
}

#[derive(Debug)]
pub(super) enum Form {
    Single(Kind),
    Repeated,
    Entry(Box<str>),
}

impl CredentialPlan {
    /// Resolves the fields. Fails with each one that is wrong: the key of the declaration, and what is wrong.
    pub fn compile(
        tables: &Tables,
        request: MessageId,
        reply: MessageId,
        fields: &CredentialFields<'_>,
    ) -> Result<CredentialPlan, Vec<(&'static str, String)>> {
        let mut wrong = Vec::new();
        let token = token_path(tables, request, fields.token).map_err(|text| wrong.push(("token", text)));
        let mut field = |key, name: Option<&str>, fits: fn(&Form) -> bool, expected: &str| {
            let found = reply_field(tables, reply, name?, fits, expected);
            found.map_err(|text| wrong.push((key, text))).ok()
        };
        let is_text = |form: &Form| matches!(form, Form::Single(Kind::String) | Form::Entry(_));
        let is_texts = |form: &Form| matches!(form, Form::Single(Kind::String) | Form::Entry(_) | Form::Repeated);
        let is_truth = |form: &Form| matches!(form, Form::Single(Kind::Bool));
        let is_millis = |form: &Form| matches!(form, Form::Single(Kind::Int64 | Kind::Uint64 | Kind::Fixed64));
        let text = "a text field, or an entry of a map of texts such as `data[name]`";
        let valid = field("valid", Some(fields.valid), is_truth, "a boolean field");
        let user = field("user", Some(fields.user), is_text, text);
        let tenant = field("tenant", fields.tenant, is_text, text);
        let roles = field("roles", fields.roles, is_texts, text);
        let expires = field("expires", fields.expires, is_millis, "a 64-bit number of milliseconds since 1970");
        match (token, valid, user) {
            (Ok(token), Some(valid), Some(user)) if wrong.is_empty() => {
                Ok(CredentialPlan { token, valid, user, tenant, roles, expires })
            }
            _ => Err(wrong),
        }
    }

    /// The request that checks a token.
    pub fn request(&self, token: &str) -> Vec<u8> {
        self.token.iter().rev().fold(token.as_bytes().to_vec(), |inner, number| {
            let mut outer = Vec::with_capacity(inner.len() + 8);
            put_bytes(*number, &inner, &mut outer);
            outer
        })
    }

    /// What a reply says; `None` where the credential is not valid, or is nobody's.
    pub fn read(&self, reply: &[u8]) -> Option<Verified> {
        if self.valid.read(reply) != "true" {
            return None;
        }
        let text = |field: &Option<ReplyField>| field.as_ref().map(|field| field.read(reply)).unwrap_or_default();
        let verified = Verified {
            user: self.user.read(reply),
            tenant: text(&self.tenant),
            roles: text(&self.roles),
            expires_at_ms: text(&self.expires).parse().ok().filter(|ms| *ms > 0),
        };
        Some(verified).filter(|verified| !verified.user.is_empty())
    }
}

impl ReplyField {
    /// Its value as text; empty where it is absent.
    pub(super) fn read(&self, reply: &[u8]) -> String {
        let mut message = reply.to_vec();
        for number in &self.around {
            // The parts of a split message merge as they follow.
            let mut merged = Vec::new();
            let _ = each_message(&message, *number, |part| {
                merged.extend_from_slice(part);
                Ok(())
            });
            message = merged;
        }
        if let Form::Single(kind) = self.form {
            return scalar_text(&message, self.number, kind).unwrap_or_default();
        }
        let mut texts: Vec<String> = Vec::new();
        let _ = each_message(&message, self.number, |value| {
            match &self.form {
                Form::Entry(key) => {
                    // Of two entries with one key the last counts.
                    if let Some((_, text)) = pair(value).filter(|(name, _)| **name == **key) {
                        texts = vec![text];
                    }
                }
                _ => texts.push(String::from_utf8_lossy(value).into_owned()),
            }
            Ok(())
        });
        texts.join(",")
    }
}

fn token_path(tables: &Tables, request: MessageId, name: &str) -> Result<Vec<u32>, String> {
    let path = FieldPath::resolve(tables, request, name).map_err(|error| error.to_string())?;
    let spec = &path.field(tables).spec;
    if spec.kind != Kind::String || spec.cardinality != Cardinality::Single {
        return Err(format!("`{name}` is no text field"));
    }
    Ok(numbers(tables, &path))
}

pub(super) fn reply_field(
    tables: &Tables,
    reply: MessageId,
    name: &str,
    fits: fn(&Form) -> bool,
    expected: &str,
) -> Result<ReplyField, String> {
    let path = FieldPath::resolve(tables, reply, name).map_err(|error| error.to_string())?;
    let spec = &path.field(tables).spec;
    let form = match (spec.cardinality, path.map_key()) {
        (Cardinality::Map, Some(key)) if is_map_of_texts(tables, spec.kind) => Some(Form::Entry(key.into())),
        (Cardinality::Single, _) => Some(Form::Single(spec.kind)),
        (Cardinality::Repeated, _) if spec.kind == Kind::String => Some(Form::Repeated),
        _ => None,
    };
    let form = form.filter(fits).ok_or_else(|| format!("`{name}`: expected {expected}"))?;
    let mut around = numbers(tables, &path);
    let number = around.pop().unwrap_or_default();
    Ok(ReplyField { around, number, form })
}

fn is_map_of_texts(tables: &Tables, entry: Kind) -> bool {
    let Kind::Message(entry) = entry else { return false };
    tables.message(entry).fields.iter().all(|field| field.spec.kind == Kind::String)
}

fn numbers(tables: &Tables, path: &FieldPath) -> Vec<u32> {
    path.steps().iter().map(|(message, field)| tables.message(*message).field(*field).spec.number).collect()
}

//! Two versions of a message, walked side by side from a root down.

use std::collections::HashSet;

use crate::transcode::table::{Cardinality, EnumTable, Field, Kind, MessageTable, Presence, Shape};
use crate::transcode::{Defaults, EnumId, Enums, JsonOut, MessageId, Names, Tables};

/// Which way a message goes, and so what counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Side {
    /// Clients send it as JSON; never the caller context, which is the field of that number.
    Request { context: Option<u32> },
    /// The gateway fills it in: only workers see it.
    Context,
    /// Clients read it as JSON of that form.
    Reply { has_proto_names: bool, prints_defaults: bool, numbers_enums: bool },
}

impl Side {
    pub(super) fn reply(form: &JsonOut) -> Side {
        Side::Reply {
            has_proto_names: form.names == Names::Proto,
            prints_defaults: form.defaults == Defaults::Print,
            numbers_enums: form.enums == Enums::Number,
        }
    }

    fn is_request(self) -> bool {
        matches!(self, Side::Request { .. })
    }

    /// Who has to do with a field that has gone.
    fn users(self) -> &'static str {
        match self {
            Side::Request { .. } => "clients send it",
            Side::Context => "workers read it",
            Side::Reply { .. } => "clients read it",
        }
    }
}

/// Where a walk begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Root {
    pub(super) old: MessageId,
    pub(super) new: MessageId,
    pub(super) side: Side,
    /// Only this field of it.
    pub(super) field: Option<u32>,
}

/// Something that breaks somebody.
pub(super) struct Finding {
    pub(super) element: String,
    pub(super) text: String,
}

/// Everything that breaks below a root.
pub(super) fn walk(old: &Tables, new: &Tables, root: Root) -> Vec<Finding> {
    let mut walk = Walk {
        old,
        new,
        side: root.side,
        seen: HashSet::new(),
        seen_enums: HashSet::new(),
        next: Vec::new(),
        found: Vec::new(),
    };
    match root.field {
        Some(number) => {
            let (before, after) = (old.message(root.old), new.message(root.new));
            if let Some(id) = before.field_by_number(number) {
                walk.field(before, after, before.field(id));
            }
        }
        None => walk.root(root),
    }
    while let Some((before, after)) = walk.next.pop() {
        walk.message(old.message(before), new.message(after), None);
    }
    walk.found
}

struct Walk<'t> {
    old: &'t Tables,
    new: &'t Tables,
    side: Side,
    seen: HashSet<(MessageId, MessageId)>,
    seen_enums: HashSet<(EnumId, EnumId)>,
    next: Vec<(MessageId, MessageId)>,
    found: Vec<Finding>,
}

impl<'t> Walk<'t> {
    fn root(&mut self, root: Root) {
        let (before, after) = (self.old.message(root.old), self.new.message(root.new));
        if before.shape != after.shape {
            let text = format!("what was `{}` is `{}` now", before.name, after.name);
            return self.add(&after.name, text);
        }
        let context = if let Side::Request { context } = self.side { context } else { None };
        self.message(before, after, context);
    }

    /// Compares all fields but one.
    fn message(&mut self, before: &'t MessageTable, after: &'t MessageTable, without: Option<u32>) {
        if before.shape != Shape::Plain {
            return;
        }
        for field in before.fields.iter().filter(|field| Some(field.spec.number) != without) {
            self.field(before, after, field);
        }
        if self.side.is_request() {
            let is_new = |field: &&Field| before.field_by_number(field.spec.number).is_none();
            for field in after.fields.iter().filter(is_new).filter(|field| field.spec.presence == Presence::Required) {
                let text =
                    format!("field `{}` of `{}` is required: clients do not send it", field.spec.name, after.name);
                self.add(&format!("{}.{}", after.name, field.spec.name), text);
            }
        }
    }

    fn field(&mut self, before: &'t MessageTable, after: &'t MessageTable, field: &'t Field) {
        let old = &field.spec;
        let known = format!("field `{}` of `{}`", old.name, before.name);
        let element = format!("{}.{}", after.name, old.name);
        let named = after.field_by_name(old.json_name.as_bytes()).or(after.field_by_name(old.name.as_bytes()));
        let named = named.map(|id| &after.field(id).spec);
        if let Some(new) = named.filter(|new| new.number != old.number) {
            let text = format!(
                "{known} was number {} and is number {}: workers of one version do not find it in messages of the other",
                old.number, new.number
            );
            return self.add(&element, text);
        }
        let Some(id) = after.field_by_number(old.number) else {
            return self.add(&element, format!("{known} is gone: {}", self.side.users()));
        };
        let new = after.field(id);
        let (was, is) = (self.type_of(self.old, field), self.type_of(self.new, new));
        if named.is_none() && was != is {
            let text = format!(
                "number {} of `{}` was `{}`, {was}, and is `{}`, {is}: a number keeps its field",
                old.number, before.name, old.name, new.spec.name
            );
            return self.add(&format!("{}.{}", after.name, new.spec.name), text);
        }
        self.names(before, after, field, new);
        let element = format!("{}.{}", after.name, new.spec.name);
        if old.cardinality != new.spec.cardinality || self.is_other_kind(old.kind, new.spec.kind) {
            return self.add(&element, format!("{known} was {was} and is {is}"));
        }
        if self.side != Side::Context {
            self.presence(&known, &element, field, new);
            self.oneof(before, after, field, new);
        }
        self.below(old.kind, new.spec.kind);
    }

    /// A field that clients know under a name that is not its own any more.
    fn names(&mut self, before: &MessageTable, after: &MessageTable, field: &Field, new: &Field) {
        let (old, new) = (&field.spec, &new.spec);
        let other = match self.side {
            Side::Context => None,
            Side::Request { .. } => {
                let is_unknown = |name: &&String| after.field_by_name(name.as_bytes()).is_none();
                [&old.json_name, &old.name].into_iter().find(is_unknown).map(|name| (name, "clients send"))
            }
            Side::Reply { has_proto_names: true, .. } => (old.name != new.name).then_some((&old.name, "clients read")),
            Side::Reply { .. } => (old.json_name != new.json_name).then_some((&old.json_name, "clients read")),
        };
        if let Some((name, users)) = other {
            let is = if old.name == new.name { &new.json_name } else { &new.name };
            let text = format!("field `{}` of `{}` is called `{is}` now: {users} `{name}`", old.name, before.name);
            self.add(&format!("{}.{}", after.name, new.name), text);
        }
    }

    fn presence(&mut self, known: &str, element: &str, field: &Field, new: &Field) {
        let (old, new) = (&field.spec, &new.spec);
        let prints_defaults = matches!(self.side, Side::Reply { prints_defaults: true, .. });
        let text = match (old.presence, new.presence, self.side) {
            (Presence::Implicit | Presence::Explicit, Presence::Required, Side::Request { .. }) => {
                "is required now: clients may leave it out"
            }
            (Presence::Required, Presence::Implicit | Presence::Explicit, Side::Reply { .. }) => {
                "is no longer required: clients rely on it"
            }
            (Presence::Explicit, Presence::Implicit, Side::Reply { .. }) if !prints_defaults => {
                "no longer tells its default from nothing: replies leave it out"
            }
            (Presence::Implicit, Presence::Explicit, Side::Reply { .. }) if prints_defaults => {
                "may be absent now: clients always got it"
            }
            _ if old.default != new.default => "has another default: what is left out means something else",
            _ => return,
        };
        self.add(element, format!("{known} {text}"));
    }

    /// Clients that set two fields at once are refused where these become alternatives.
    fn oneof(&mut self, before: &MessageTable, after: &MessageTable, field: &Field, new: &Field) {
        let Some(oneof) = new.spec.oneof.filter(|_| self.side.is_request()) else { return };
        let is_partner = |other: &&Field| {
            let was = before.field_by_number(other.spec.number).map(|id| before.field(id).spec.oneof);
            other.spec.oneof == Some(oneof)
                && other.spec.number != field.spec.number
                && was.is_some_and(|was| was.is_none() || was != field.spec.oneof)
        };
        if after.fields.iter().any(|other| is_partner(&other)) {
            let text = format!(
                "field `{}` of `{}` is one of the alternatives `{}` now: clients may send it beside another of them",
                field.spec.name,
                before.name,
                after.oneof_name(oneof)
            );
            self.add(&format!("{}.{}", after.name, new.spec.name), text);
        }
    }

    /// What is below two fields of the same kind.
    fn below(&mut self, old: Kind, new: Kind) {
        match (old, new) {
            (Kind::Message(old), Kind::Message(new)) | (Kind::Group(old), Kind::Group(new))
                if self.seen.insert((old, new)) =>
            {
                self.next.push((old, new));
            }
            (Kind::Enum(old), Kind::Enum(new)) if self.seen_enums.insert((old, new)) => {
                self.values(self.old.enumeration(old), self.new.enumeration(new));
            }
            _ => {}
        }
    }

    fn values(&mut self, before: &EnumTable, after: &EnumTable) {
        let is_named = !matches!(self.side, Side::Context | Side::Reply { numbers_enums: true, .. });
        for (name, number) in before.names() {
            // Replies print the first of several names.
            let is_printed = before.name_of(number) == Some(name);
            let is_used = is_named && (self.side.is_request() || is_printed);
            let known = format!("value `{name}` of `{}`", before.name);
            let text = match (after.number_of(name.as_bytes()), after.name_of(number)) {
                (Some(other), _) if other != number => format!("{known} was {number} and is {other}"),
                (None, Some(other)) if is_used => {
                    format!("{known} is called `{other}` now: {}", self.side.users())
                }
                (None, None) if is_used || self.side == Side::Context => {
                    format!("{known} is gone: {}", self.side.users())
                }
                (Some(_), Some(other)) if is_used && !self.side.is_request() && other != name => {
                    format!("{known} is printed as `{other}` now: {}", self.side.users())
                }
                _ => continue,
            };
            self.add(&format!("{}.{name}", after.name), text);
        }
        if after.is_closed && !before.is_closed {
            let text = format!("`{}` is closed now: values that it does not name are dropped", after.name);
            self.add(&after.name, text);
        }
    }

    /// True where values of one kind are not values of the other, for whoever writes and whoever reads them.
    fn is_other_kind(&self, old: Kind, new: Kind) -> bool {
        match (old, new) {
            (Kind::Message(old), Kind::Message(new)) | (Kind::Group(old), Kind::Group(new)) => {
                self.old.message(old).shape != self.new.message(new).shape
            }
            (Kind::Enum(_), Kind::Enum(_)) => false,
            // What clients send fits the wider one, on the wire as well.
            (Kind::Int32 | Kind::Uint32, Kind::Int64) | (Kind::Uint32, Kind::Uint64) | (Kind::Sint32, Kind::Sint64) => {
                !self.side.is_request()
            }
            _ => old != new,
        }
    }

    /// `int32`, `a list of shop.v1.Item`.
    fn type_of(&self, tables: &Tables, field: &Field) -> String {
        let kind = match field.spec.kind {
            Kind::Enum(id) => tables.enumeration(id).name.to_string(),
            Kind::Message(id) | Kind::Group(id) => tables.message(id).name.to_string(),
            // The names are protobuf's own.
            kind => format!("{kind:?}").to_lowercase(),
        };
        match field.spec.cardinality {
            Cardinality::Single => format!("`{kind}`"),
            Cardinality::Repeated => format!("a list of `{kind}`"),
            Cardinality::Map => "a map".to_owned(),
        }
    }

    fn add(&mut self, element: &str, text: String) {
        self.found.push(Finding { element: element.to_owned(), text });
    }
}

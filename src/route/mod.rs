//! From verb and path to a method's request bytes: templates, the tree that finds a route, and the binding that joins
//! body, path, query, presets and headers. Pure; knows nothing of connections, buses or files.

mod binding;
mod edges;
mod node;
mod percent;
mod segments;
mod template;
mod tree;

pub use binding::{Binding, BindingError, Body, Bound, Content, HTTP_BODY, HttpRule, Parts};
pub use segments::{SEGMENTS_MAX, Segments};
pub use template::{PathTemplate, Segment, TemplateError, Variable};
pub use tree::{Conflict, Lookup, RouteId, Tree};

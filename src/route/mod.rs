//! From verb and path to a method's request bytes: templates, the tree that finds a route, and the binding that joins
//! body, path, query, presets and headers. Pure; knows nothing of connections, buses or files.

mod binding;
mod edges;
mod fit;
mod node;
mod percent;
mod segments;
mod template;
mod tree;

pub use binding::{Binding, BindingError, Body, BodyOutline, Bound, BoundFields, Content, HTTP_BODY, HttpRule, Parts};
pub use fit::{Fit, Misfit};
pub use segments::{SEGMENTS_MAX, Segments};
pub use template::{PathTemplate, Segment, TemplateError, Variable};
pub use tree::{Conflict, Lookup, RouteId, Tree};

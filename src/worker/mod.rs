//! The bus edge: methods of a service subscribed, dispatched to handlers over plain Rust structs, answered. Knows
//! neither HTTP nor the game.

pub mod types;

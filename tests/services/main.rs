//! The 22 services, as their callers see them: what the documented examples (`tests/examples.rs`) do not show. One program,
//! because each would carry a gateway, a worker and 22 services of its own.

mod ai_integration;
mod ai_router;
mod auth;
mod body_broker_integration;
mod event_bus;
mod knowledge_base;
mod language_system;
mod models;
mod npc_behavior;
mod orchestration;
mod over_http;
mod payment;
mod performance_mode;
mod quest_system;
mod router;
mod settings;
mod state_manager;
mod stories;
#[path = "../support/mod.rs"]
mod support;
mod watches;
mod words;
mod worlds;

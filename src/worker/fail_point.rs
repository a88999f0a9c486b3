//! Places where a test stops this process, to kill it there: `TIDEGATE_FAIL_AT=after_commit:tg_state`. Builds without
//! debug assertions have none.

/// A place in the life of a change, and how the variable names it.
#[derive(Clone, Copy)]
pub(super) enum Place {
    BeforeCommit,
    AfterCommit,
    AfterEvents,
}

/// Stops the thread for good where this place, of changes to this bucket, was asked for.
#[cfg(debug_assertions)]
pub(super) fn reached(place: Place, bucket: &str) {
    let name = match place {
        Place::BeforeCommit => "before_commit",
        Place::AfterCommit => "after_commit",
        Place::AfterEvents => "after_events",
    };
    if crate::config::variable("TIDEGATE_FAIL_AT").is_some_and(|wanted| wanted == format!("{name}:{bucket}")) {
        tracing::error!(place = name, bucket, "stopped to be killed");
        loop {
            std::thread::park();
        }
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn reached(_: Place, _: &str) {}

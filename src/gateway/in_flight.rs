//! Requests that are being answered, as a gauge.

/// Counts a request while it lives, also where its connection ends before its answer.
pub(super) struct InFlight<'m>(&'m metrics::Gauge);

impl<'m> InFlight<'m> {
    pub(super) fn new(gauge: &'m metrics::Gauge) -> InFlight<'m> {
        gauge.increment(1.0);
        InFlight(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

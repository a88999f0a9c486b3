//! Real numbers as the rules want them.

/// Rounded to so many decimals, half away from zero.
pub(super) fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (value * scale).round() / scale
}

/// Rounded as thresholds are compared.
pub(super) fn comparable(value: f64) -> f64 {
    rounded(value, 6)
}

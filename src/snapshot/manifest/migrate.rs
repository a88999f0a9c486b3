//! A route's way from an old system to its workers, as written.

use schemars::JsonSchema;

use super::At;

/// An old system beside the workers of a route, and who serves whom.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrateRow {
    /// Where the requests went before.
    pub old: At<OldRow>,
    /// Percent of the callers that the new side serves, the route's own workers: 0 (default) to 100.
    #[serde(default)]
    pub share: Option<At<f64>>,
    /// What keeps a caller on one side, the first that a request has: `user`, `tenant`, `client` (address),
    /// `header:NAME`, `field:PATH` of the request message. Without it `user`; `client` comes last in any case.
    #[serde(default)]
    pub by: Vec<At<String>>,
    /// Copies for the side that does not serve.
    #[serde(default)]
    pub shadow: Option<At<ShadowRow>>,
    /// A share that moves by itself, instead of `share`.
    #[serde(default)]
    pub cutover: Option<At<CutoverRow>>,
}

/// The old system: one of the two.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OldRow {
    /// It takes the request message as JSON by `POST` there: `http://10.0.0.7:5000/state/get`. An address without a path
    /// has the paths that clients use.
    pub http: Option<At<String>>,
    /// Workers of another version on another subject, with the same messages.
    pub subject: Option<At<String>>,
}

/// Copies of requests for the side that does not serve, whose answers are compared with those of the side that does.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ShadowRow {
    /// Which side gets copies: `new`, `old`, or `both` (default), whichever does not serve.
    pub to: Option<At<String>>,
    /// Percent of the requests that are copied: above 0, to 100 (default).
    pub percent: Option<At<f64>>,
    /// Most copies on their way at once; those above it are dropped and counted (default 16).
    pub calls: Option<At<usize>>,
    /// Longest wait for the answer to a copy: the route's `timeout` without it, but no more than `5s`.
    pub timeout: Option<At<String>>,
    /// Reply fields that may differ: `meta.timestamp`. A path goes through lists and the values of maps.
    pub ignore: Vec<At<String>>,
    /// Lists of the reply whose order says nothing.
    pub unordered: Vec<At<String>>,
    /// How far numbers with fractions may lie apart, as a part of the larger one: `0.001` (default 0).
    pub tolerance: Option<At<f64>>,
    /// Copies also go out for calls that change something: the other side then does it as well.
    pub writes: bool,
    /// The report keeps the answers of the last differences, too.
    pub bodies: bool,
}

/// A share that the gateway raises itself while the evidence is good, and takes back where it is not.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CutoverRow {
    /// Shares in percent, rising: `[1, 5, 25, 100]`.
    pub steps: Vec<At<f64>>,
    /// How long a step is looked at (default `10m`).
    #[serde(default, rename = "for")]
    pub length: Option<At<String>>,
    /// Requests of the new side without which a step is not left (default 1000).
    #[serde(default)]
    pub requests: Option<At<u64>>,
    /// Percent of the new side's requests that may end with an error of its own, for the next step: less than this (default 0.5).
    #[serde(default)]
    pub errors_below: Option<At<f64>>,
    /// Percent of the compared answers that may differ, for the next step: less than this. Needs `shadow`.
    #[serde(default)]
    pub differences_below: Option<At<f64>>,
    /// Percent of errors from which everybody goes back to the old side at once (default 5).
    #[serde(default)]
    pub errors_from: Option<At<f64>>,
    /// Percent of differences from which everybody goes back to the old side at once. Needs `shadow`.
    #[serde(default)]
    pub differences_from: Option<At<f64>>,
}

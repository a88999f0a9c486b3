//! What can go wrong, in words: a row for each reason that the edge gives, and for each code that a worker's error has.
//! docs/errors.md is written from here, and so are the errors of the API description.

mod rows;

use std::fmt::Write as _;

use super::respond;
use crate::fault::{Code, Reason};

pub use rows::ENTRIES;

/// Whether sending the same request again makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It fails again.
    No,
    /// After a pause: nothing has happened yet.
    Later,
    /// Only where repeating is safe: something may have happened already.
    WhereSafe,
}

impl Retry {
    fn words(self) -> &'static str {
        match self {
            Retry::No => "no",
            Retry::Later => "yes, after a pause",
            Retry::WhereSafe => "where repeating is safe",
        }
    }
}

/// One kind of error.
#[derive(Debug)]
pub struct Entry {
    /// The edge's reason; `None` for the errors of workers.
    pub reason: Reason,
    /// The code that it comes with.
    pub code: Code,
    /// What has happened.
    pub meaning: &'static str,
    /// What the client does about it.
    pub remedy: &'static str,
    /// Whether to send it again.
    pub retry: Retry,
}

impl Entry {
    /// The token of `reason`, or of the code: `rate_limited`, `not_found`.
    pub fn token(&self) -> String {
        respond::token_of(self.reason, self.code.name())
    }

    /// Its HTTP status, where no house style says otherwise.
    pub fn status(&self) -> u16 {
        respond::status_of_kind(self.reason, self.code)
    }

    /// The `type` of RFC 9457.
    pub fn uri(&self) -> String {
        respond::type_of(&self.token())
    }
}

/// docs/errors.md.
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    let (edge, workers): (Vec<_>, Vec<_>) = ENTRIES.iter().partition(|problem| problem.reason != Reason::None);
    section(&mut page, "## Errors of the gateway\n", &edge);
    section(&mut page, WORKERS, &workers);
    page
}

fn section(page: &mut String, title: &str, problems: &[&Entry]) {
    page.push('\n');
    page.push_str(title);
    for problem in problems {
        let (token, status, code) = (problem.token(), problem.status(), problem.code.name());
        // Writing to a text cannot fail.
        let _ = write!(
            page,
            "\n### {token}\n\n{}\n\n| status | `code` | `type` | send it again? |\n|---|---|---|---|\n\
             | {status} | `{code}` | `{}` | {} |\n\nWhat to do: {}\n",
            problem.meaning,
            problem.uri(),
            problem.retry.words(),
            problem.remedy
        );
    }
}

const HEAD: &str = "# Errors

Every error that can leave the gateway, by its `reason`, or by its `code` where a worker said no more. A route's `errors`
policy chooses the form; the words are the same in all three:

| | `problem` (RFC 9457) | `google` (AIP-193) | `legacy` |
|---|---|---|---|
| content type | `application/problem+json` | `application/json` | `application/json` |
| code | `code` | `error.status` | `error.code` |
| reason | `reason`, and the end of `type` | `ErrorInfo.reason`, in upper case | `error.details.reason` |
| text for people | `detail` | `error.message` | `error.message` |
| wrong fields | `errors[]` | `BadRequest.fieldViolations[]` | `error.details.field` |
| id for reports | `request_id` | `RequestInfo.requestId` | `request_id` |

Match on `reason` or `code`, never on texts. A `type` is a name, not an address: its last part is the heading on this page,
with `_` for `-`. On a stream that has begun, the same body comes as `event: error`. `Retry-After` comes with 429 and 503.
A house style may give its codes other statuses (`error.codes` in routes.yaml; in the game `FAILED_PRECONDITION` is 412).
";

const WORKERS: &str = "## Errors of workers

A worker's error has the code that the worker gave it, its own text and its own details (`details.reason` says which rule
of the service it was, where it says so). The statuses are those of `google.rpc.Code`.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_and_every_code_has_one_row_and_no_two_have_the_same_name() {
        let reasons = ENTRIES.iter().filter(|problem| problem.reason != Reason::None).map(|problem| problem.reason);
        let reasons: std::collections::HashSet<Reason> = reasons.collect();
        // `None` is the first and `Panicked` the last one.
        assert_eq!(reasons.len(), Reason::Panicked as usize, "a `Reason` has no row here");
        let codes = ENTRIES.iter().filter(|problem| problem.reason == Reason::None).map(|problem| problem.code);
        assert_eq!(codes.collect::<std::collections::HashSet<Code>>().len(), Code::Conflict as usize + 1);
        let tokens: std::collections::HashSet<String> = ENTRIES.iter().map(Entry::token).collect();
        assert_eq!(tokens.len(), ENTRIES.len());
    }
}

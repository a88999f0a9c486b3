//! A cutover: the share of callers that a new system serves, raised step by step on evidence and taken back where it goes
//! wrong. Knows nothing of what serves them. Times are lengths since any fixed moment.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A whole share: shares are counted in hundredths of a percent.
pub const WHOLE: u32 = 10_000;
/// Moves that are remembered, the newest.
const MOVES_MAX: usize = 20;
/// Fewest errors, or differences, that a cutover goes back for: one of the first two is no half.
const FAILURES_MIN: u64 = 5;
/// How long what happened of late is judged by itself.
const RECENT: Duration = Duration::from_secs(30);
/// Fewest comparisons that differences are judged by.
const COMPARED_MIN: u64 = 20;

/// When a cutover moves.
#[derive(Clone, Debug, PartialEq)]
pub struct CutoverRule {
    /// Shares, rising; never empty.
    pub steps: Vec<u32>,
    /// How long a step is looked at before it is judged.
    pub length: Duration,
    /// Requests of the new side without which a step is not judged.
    pub requests: u64,
    /// The part of them that ended with an error has to be below this.
    pub errors_below: f64,
    /// The part of the compared answers that differed has to be below this.
    pub differences_below: Option<f64>,
    /// From this part on it goes back at once.
    pub errors_from: f64,
    /// From this part on it goes back at once.
    pub differences_from: Option<f64>,
}

/// What a cutover is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It moves by itself.
    Running,
    /// Somebody has stopped it where it is.
    Held,
    /// It went back, and waits for somebody.
    RolledBack,
}

impl Course {
    /// As people are told.
    pub fn word(self) -> &'static str {
        match self {
            Course::Running => "running",
            Course::Held => "held",
            Course::RolledBack => "rolled back",
        }
    }
}

/// A change of the share, or the refusal of one, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// When.
    pub at: Duration,
    /// The share before.
    pub from: u32,
    /// The share from then on; the same where it stays.
    pub to: u32,
    /// Why.
    pub why: String,
}

/// What has happened since a step began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Requests that the new side served.
    pub requests: u64,
    /// Those of them that ended with an error of its own.
    pub errors: u64,
    /// The same of the old side, to compare with.
    pub old_requests: u64,
    /// The same of the old side, to compare with.
    pub old_errors: u64,
    /// Requests of the new side that its service refused.
    pub refused: u64,
    /// The same of the old side.
    pub old_refused: u64,
    /// Answers of both sides that were compared.
    pub compared: u64,
    /// Those that differed.
    pub different: u64,
}

/// How a cutover stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The share in force.
    pub share: u32,
    /// What it is doing.
    pub course: Course,
    /// When the step began: with its first request. `None` before that.
    pub since: Option<Duration>,
    /// What has happened since.
    pub evidence: Evidence,
    /// What moved it, the newest last.
    pub moves: Vec<Move>,
}

/// How a side has served a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// With a reply, or with what is wrong with the request by the gateway's own checks.
    Answered,
    /// The service has refused it: there is nothing, or too much.
    Refused,
    /// The service, the bus or the gateway has failed.
    Failed,
}

/// A cutover.
#[derive(Debug)]
pub struct Cutover {
    share: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    course: Course,
    since: Option<Duration>,
    evidence: Evidence,
    /// That of the last moments, so that a step's good hours do not outweigh an outage.
    recent: Evidence,
    recent_since: Duration,
    moves: VecDeque<Move>,
}

impl State {
    /// What is gathered over the step, and of late.
    fn both(&mut self, now: Duration) -> [&mut Evidence; 2] {
        if now.saturating_sub(self.recent_since) >= RECENT {
            (self.recent_since, self.recent) = (now, Evidence::default());
        }
        [&mut self.evidence, &mut self.recent]
    }
}

impl Cutover {
    /// One that begins with a share.
    pub fn new(share: u32) -> Cutover {
        let (since, evidence, moves) = (None, Evidence::default(), VecDeque::new());
        let (recent, recent_since) = Default::default();
        let state = Mutex::new(State { course: Course::Running, since, evidence, recent, recent_since, moves });
        Cutover { share: AtomicU32::new(share), state }
    }

    /// The share of callers on the new side, of [`WHOLE`].
    pub fn share(&self) -> u32 {
        self.share.load(Ordering::Relaxed)
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let state = self.lock();
        Standing {
            share: self.share(),
            course: state.course,
            since: state.since,
            evidence: state.evidence,
            moves: state.moves.iter().cloned().collect(),
        }
    }

    /// A side has served a request. Gives the move that follows from it.
    pub fn served(&self, rule: Option<&CutoverRule>, is_new: bool, verdict: Verdict, now: Duration) -> Option<Move> {
        let mut state = self.lock();
        for evidence in state.both(now) {
            let (requests, errors, refused) = match is_new {
                true => (&mut evidence.requests, &mut evidence.errors, &mut evidence.refused),
                false => (&mut evidence.old_requests, &mut evidence.old_errors, &mut evidence.old_refused),
            };
            *requests += 1;
            *errors += u64::from(verdict == Verdict::Failed);
            *refused += u64::from(verdict == Verdict::Refused);
        }
        self.judge(&mut state, rule?, now)
    }

    /// Two answers have been compared. Gives the move that follows from it.
    pub fn compared(&self, rule: Option<&CutoverRule>, is_different: bool, now: Duration) -> Option<Move> {
        let mut state = self.lock();
        for evidence in state.both(now) {
            evidence.compared += 1;
            evidence.different += u64::from(is_different);
        }
        self.judge(&mut state, rule?, now)
    }

    /// Stops it where it is.
    pub fn hold(&self, now: Duration) -> Move {
        let mut state = self.lock();
        let share = self.share();
        self.change(&mut state, Course::Held, share, "held by an operator".to_owned(), now)
    }

    /// Puts a share in force, and stops there.
    pub fn set(&self, share: u32, now: Duration) -> Move {
        self.put(Course::Held, share, "set by an operator".to_owned(), now)
    }

    /// Gives everybody back to the old side, and waits.
    pub fn roll_back(&self, now: Duration) -> Move {
        self.put(Course::RolledBack, 0, "rolled back by an operator".to_owned(), now)
    }

    /// Lets it move by itself, from the share in force, or the first step where that is larger.
    pub fn go_on(&self, rule: &CutoverRule, now: Duration) -> Move {
        let mut state = self.lock();
        let share = self.share().max(rule.steps.first().copied().unwrap_or(0));
        self.change(&mut state, Course::Running, share, "set going by an operator".to_owned(), now)
    }

    fn put(&self, course: Course, to: u32, why: String, now: Duration) -> Move {
        self.change(&mut self.lock(), course, to, why, now)
    }

    fn change(&self, state: &mut State, course: Course, to: u32, why: String, now: Duration) -> Move {
        let moved = Move { at: now, from: self.share(), to, why };
        self.share.store(to, Ordering::Relaxed);
        (state.course, state.since, state.evidence) = (course, Some(now), Evidence::default());
        (state.recent, state.recent_since) = (Evidence::default(), now);
        if state.moves.len() >= MOVES_MAX {
            state.moves.pop_front();
        }
        state.moves.push_back(moved.clone());
        moved
    }

    fn judge(&self, state: &mut State, rule: &CutoverRule, now: Duration) -> Option<Move> {
        if state.course != Course::Running {
            return None;
        }
        let (evidence, share, since) = (state.evidence, self.share(), *state.since.get_or_insert(now));
        if let Some(why) = evidence.breach(rule).or_else(|| state.recent.breach(rule)) {
            return Some(self.change(state, Course::RolledBack, 0, why, now));
        }
        let next = rule.steps.iter().find(|step| **step > share).copied();
        let is_over = now.saturating_sub(since) >= rule.length && evidence.requests >= rule.requests;
        if !is_over {
            return None;
        }
        let Some(next) = next else {
            // The last step is only watched: what was long ago must not outweigh what is now.
            (state.since, state.evidence) = (Some(now), Evidence::default());
            return None;
        };
        match evidence.shortfall(rule) {
            Shortfall::Unknown if now.saturating_sub(since) < rule.length * 2 => None,
            Shortfall::Unknown => {
                let why = format!("too little was compared: {}", evidence.words());
                Some(self.change(state, Course::Running, share, why, now))
            }
            Shortfall::None => {
                let why = format!("the evidence is good: {}", evidence.words());
                Some(self.change(state, Course::Running, next, why, now))
            }
            Shortfall::Is(why) => Some(self.change(state, Course::Running, share, why, now)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a step is not left.
enum Shortfall {
    None,
    /// Too little was compared.
    Unknown,
    Is(String),
}

fn part(count: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { count as f64 / of as f64 }
}

fn percent(part: f64) -> String {
    format!("{} %", (part * 10_000.0).round() / 100.0)
}

impl Evidence {
    fn breach(&self, rule: &CutoverRule) -> Option<String> {
        let errors = part(self.errors, self.requests);
        if self.errors >= FAILURES_MIN && errors >= rule.errors_from {
            return Some(format!("errors reached {}: {}", percent(rule.errors_from), self.words()));
        }
        let most = rule.differences_from.filter(|_| self.different >= FAILURES_MIN)?;
        let is_reached = part(self.different, self.compared) >= most;
        is_reached.then(|| format!("differences reached {}: {}", percent(most), self.words()))
    }

    fn shortfall(&self, rule: &CutoverRule) -> Shortfall {
        if part(self.errors, self.requests) >= rule.errors_below {
            return Shortfall::Is(format!("errors are not below {}: {}", percent(rule.errors_below), self.words()));
        }
        let (refused, before) = (part(self.refused, self.requests), part(self.old_refused, self.old_requests));
        if self.refused >= FAILURES_MIN && self.old_requests > 0 && refused >= before + rule.errors_below {
            let more = format!("{} of its requests, the old side {}", percent(refused), percent(before));
            return Shortfall::Is(format!("it refuses {more}: {}", self.words()));
        }
        match rule.differences_below {
            Some(_) if self.compared < COMPARED_MIN.min(rule.requests) => Shortfall::Unknown,
            Some(most) if part(self.different, self.compared) >= most => {
                Shortfall::Is(format!("differences are not below {}: {}", percent(most), self.words()))
            }
            _ => Shortfall::None,
        }
    }

    fn words(&self) -> String {
        let Evidence { requests, compared, .. } = self;
        let (errors, different) = (percent(part(self.errors, *requests)), percent(part(self.different, *compared)));
        format!("{errors} errors of {requests} requests, {different} differences of {compared} comparisons")
    }
}

#[cfg(test)]
mod tests;

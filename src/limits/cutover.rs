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
    moves: VecDeque<Move>,
}

impl Cutover {
    /// One that begins with a share.
    pub fn new(share: u32) -> Cutover {
        let (since, evidence, moves) = (None, Evidence::default(), VecDeque::new());
        let state = Mutex::new(State { course: Course::Running, since, evidence, moves });
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
    pub fn served(&self, rule: Option<&CutoverRule>, is_new: bool, is_error: bool, now: Duration) -> Option<Move> {
        let mut state = self.lock();
        let evidence = &mut state.evidence;
        let (requests, errors) = match is_new {
            true => (&mut evidence.requests, &mut evidence.errors),
            false => (&mut evidence.old_requests, &mut evidence.old_errors),
        };
        *requests += 1;
        *errors += u64::from(is_error);
        self.judge(&mut state, rule?, now)
    }

    /// Two answers have been compared. Gives the move that follows from it.
    pub fn compared(&self, rule: Option<&CutoverRule>, is_different: bool, now: Duration) -> Option<Move> {
        let mut state = self.lock();
        state.evidence.compared += 1;
        state.evidence.different += u64::from(is_different);
        self.judge(&mut state, rule?, now)
    }

    /// Stops it where it is.
    pub fn hold(&self, now: Duration) -> Move {
        self.put(Course::Held, self.share(), "held by an operator".to_owned(), now)
    }

    /// Puts a share in force, and stops there.
    pub fn set(&self, share: u32, now: Duration) -> Move {
        self.put(Course::Held, share, "set by an operator".to_owned(), now)
    }

    /// Gives everybody back to the old side, and waits.
    pub fn roll_back(&self, now: Duration) -> Move {
        self.put(Course::RolledBack, 0, "rolled back by an operator".to_owned(), now)
    }

    /// Lets it move by itself, from the first step that is no smaller than the share in force.
    pub fn go_on(&self, rule: &CutoverRule, now: Duration) -> Move {
        let share = rule.steps.iter().find(|step| **step >= self.share()).copied().unwrap_or(self.share());
        self.put(Course::Running, share, "set going by an operator".to_owned(), now)
    }

    fn put(&self, course: Course, to: u32, why: String, now: Duration) -> Move {
        self.change(&mut self.lock(), course, to, why, now)
    }

    fn change(&self, state: &mut State, course: Course, to: u32, why: String, now: Duration) -> Move {
        let moved = Move { at: now, from: self.share(), to, why };
        self.share.store(to, Ordering::Relaxed);
        (state.course, state.since, state.evidence) = (course, Some(now), Evidence::default());
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
        if let Some(why) = evidence.breach(rule) {
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
            Shortfall::Unknown => None,
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
mod tests {
    use super::*;

    fn rule() -> CutoverRule {
        CutoverRule {
            steps: vec![100, 2_500, WHOLE],
            length: Duration::from_secs(60),
            requests: 100,
            errors_below: 0.02,
            differences_below: Some(0.05),
            errors_from: 0.1,
            differences_from: Some(0.2),
        }
    }

    struct Play {
        cutover: Cutover,
        rule: CutoverRule,
        now: Duration,
    }

    impl Play {
        fn start() -> Play {
            // The gateway has been there for a while.
            let mut play = Play { cutover: Cutover::new(100), rule: rule(), now: Duration::from_secs(9_000) };
            assert_eq!(play.round(0, (0, 0), (1, 0)), None);
            play
        }

        /// That many comparisons and requests over that many seconds; the move that came of it.
        fn round(&mut self, seconds: u64, compared: (u64, u64), requests: (u64, u64)) -> Option<String> {
            let mut moved = Vec::new();
            for number in 0..compared.0 {
                moved.extend(self.cutover.compared(Some(&self.rule), number < compared.1, self.now));
            }
            self.now += Duration::from_secs(seconds);
            for number in 0..requests.0 {
                moved.extend(self.cutover.served(Some(&self.rule), true, number < requests.1, self.now));
            }
            assert!(moved.len() <= 1, "{moved:?}");
            moved.pop().map(|one| format!("{} → {}: {}", one.from, one.to, one.why))
        }
    }

    #[test]
    fn good_evidence_moves_it_step_by_step_to_the_end() {
        let mut play = Play::start();
        assert_eq!(play.round(59, (30, 1), (200, 1)), None, "too early");
        let why = "the evidence is good: 0.5 % errors of 202 requests, 3.33 % differences of 30 comparisons";
        assert_eq!(play.round(1, (0, 0), (1, 0)), Some(format!("100 → 2500: {why}")));
        assert_eq!(play.round(60, (30, 0), (99, 0)), None, "too few requests");
        assert!(play.round(0, (0, 0), (1, 0)).unwrap().starts_with("2500 → 10000: "));
        assert_eq!(play.round(600, (30, 0), (1_000, 0)), None, "there is no step behind the last");
        assert_eq!(play.cutover.standing().course, Course::Running);
    }

    #[test]
    fn evidence_that_does_not_suffice_keeps_it_where_it_is_and_says_why() {
        let mut play = Play::start();
        let why = "errors are not below 2 %: 4 % errors of 100 requests, 0 % differences of 30 comparisons";
        assert_eq!(play.round(60, (30, 0), (99, 4)), Some(format!("100 → 100: {why}")));
        let why = "differences are not below 5 %: 0 % errors of 100 requests, 10 % differences of 40 comparisons";
        assert_eq!(play.round(60, (40, 4), (100, 0)), Some(format!("100 → 100: {why}")));
        assert_eq!(play.round(60, (19, 0), (200, 0)), None, "too few comparisons");
        assert!(play.round(0, (1, 0), (0, 0)).unwrap().starts_with("100 → 2500: "));
    }

    #[test]
    fn it_goes_back_at_once_and_waits_for_somebody() {
        let mut play = Play::start();
        assert_eq!(play.round(1, (0, 0), (4, 4)), None, "four are no evidence");
        let why = "errors reached 10 %: 83.33 % errors of 6 requests, 0 % differences of 0 comparisons";
        assert_eq!(play.round(1, (0, 0), (1, 1)), Some(format!("100 → 0: {why}")));
        assert_eq!(play.round(600, (100, 0), (1_000, 0)), None);
        let standing = play.cutover.standing();
        assert_eq!((standing.share, standing.course), (0, Course::RolledBack));
        play.cutover.go_on(&play.rule, play.now);
        assert_eq!(play.cutover.share(), 100);
        let why = "differences reached 20 %: 0 % errors of 0 requests, 100 % differences of 5 comparisons";
        assert_eq!(play.round(0, (5, 5), (0, 0)), Some(format!("100 → 0: {why}")));
    }

    #[test]
    fn an_operator_holds_sets_and_lets_go() {
        let mut play = Play::start();
        play.cutover.hold(play.now);
        assert_eq!(play.round(600, (100, 100), (1_000, 1_000)), None, "held is held");
        play.cutover.set(1_200, play.now);
        assert_eq!(play.cutover.share(), 1_200);
        play.cutover.go_on(&play.rule, play.now);
        assert_eq!(play.cutover.share(), 2_500);
        play.cutover.roll_back(play.now);
        let (first, last) = (play.cutover.standing().moves[0].clone(), play.cutover.standing().moves[3].clone());
        assert_eq!((first.to, first.why.as_str()), (100, "held by an operator"));
        assert_eq!((last.to, last.why.as_str()), (0, "rolled back by an operator"));
    }

    #[test]
    fn the_last_moves_are_remembered_and_no_more() {
        let cutover = Cutover::new(0);
        (0..100).for_each(|share| drop(cutover.set(share, Duration::ZERO)));
        let moves = cutover.standing().moves;
        assert_eq!((moves.len(), moves[0].to, moves[19].to), (20, 80, 99));
    }
}

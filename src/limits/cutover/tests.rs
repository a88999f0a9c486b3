//! What moves a share, and what does not.

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
            moved.extend({
                let verdict = if number < requests.1 { Verdict::Failed } else { Verdict::Answered };
                self.cutover.served(Some(&self.rule), true, verdict, self.now)
            });
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
    assert_eq!(play.cutover.share(), 1_200, "from where it is");
    assert_eq!(play.round(0, (30, 0), (1, 0)), None);
    assert!(play.round(60, (0, 0), (99, 0)).unwrap().starts_with("1200 → 2500: the evidence is good"));
    play.cutover.roll_back(play.now);
    let (first, last) =
        (play.cutover.standing().moves[0].clone(), play.cutover.standing().moves.last().unwrap().clone());
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

#[test]
fn an_outage_late_in_a_good_step_gives_everybody_back_within_moments() {
    let mut play = Play::start();
    play.rule.length = Duration::from_secs(86_400);
    assert_eq!(play.round(3_600, (0, 0), (100_000, 0)), None);
    assert_eq!(play.round(60, (0, 0), (4, 4)), None);
    assert!(play.round(1, (0, 0), (1, 1)).unwrap().starts_with("100 → 0: errors reached 10 %"));
}

#[test]
fn a_new_side_that_refuses_what_the_old_one_answers_is_not_promoted() {
    let mut play = Play::start();
    let serve = |play: &Play, is_new: bool, verdict| play.cutover.served(Some(&play.rule), is_new, verdict, play.now);
    (0..100).for_each(|_| assert_eq!(serve(&play, false, Verdict::Answered), None));
    (0..99).for_each(|_| assert_eq!(serve(&play, true, Verdict::Refused), None));
    let moved = play.round(60, (30, 0), (1, 0)).unwrap();
    assert!(moved.starts_with("100 → 100: it refuses 98.02 % of its requests, the old side 0 %"), "{moved}");
}

#[test]
fn a_step_of_which_too_little_was_compared_says_so() {
    let mut play = Play::start();
    assert_eq!(play.round(60, (0, 0), (200, 0)), None, "comparisons may still come");
    assert!(play.round(60, (0, 0), (1, 0)).unwrap().starts_with("100 → 100: too little was compared"));
}

//! An execution as it is stored, and how it goes on: which steps begin, are taken over, are undone. Pure; every change is
//! decided here and committed by compare-and-set.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::workflow::{Step, Workflow};
use crate::worker::Requester;

/// Bytes of replies that one execution keeps.
const RESULTS_MAX: usize = 192 * 1024;
/// Deliveries of its work without any progress in between, after which it is given up.
const TAKES_MAX: u32 = 5;
/// Message of what the deadline ended, and of what was given up.
pub(super) const DEADLINE: &str = "deadline";
const GAVE_UP: &str = "engine_gave_up";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Running,
    Completed,
    Failed,
    Cancelled,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum StepStatus {
    Pending,
    Running,
    Completed,
    Failed,
    Cancelled,
    Compensated,
}

impl StepStatus {
    pub(super) fn name(self) -> &'static str {
        match self {
            StepStatus::Pending => "pending",
            StepStatus::Running => "running",
            StepStatus::Completed => "completed",
            StepStatus::Failed => "failed",
            StepStatus::Cancelled => "cancelled",
            StepStatus::Compensated => "compensated",
        }
    }
}

/// A step of the workflow, and how far it is: what is shown of it has the names of `orchestration.v1.WorkflowStep`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StepState {
    pub(super) step_id: String,
    pub(super) service: String,
    pub(super) operation: String,
    pub(super) status: StepStatus,
    pub(super) started_at_ms: i64,
    pub(super) completed_at_ms: i64,
    /// The reply in base64.
    result: String,
    pub(super) error_message: String,
    /// Counts how often it was begun; who begun it says so with its result.
    attempt: u32,
    /// Until then nobody else takes it, or its compensation, over.
    lease_until_ms: i64,
    /// Its place in the order in which steps were completed; 0 for one that has done nothing.
    place: u32,
    /// It cannot be undone: that was tried.
    is_stuck: bool,
}

/// An execution. What is shown of it is declared, and has the names of `orchestration.v1.GetStatusResponse`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Execution {
    pub(super) execution_id: String,
    pub(super) workflow_id: String,
    /// As it was stored, in percent; and whether nothing more happens to it.
    progress_percentage: i32,
    is_over: bool,
    /// As it was when the execution began.
    pub(super) workflow: Workflow,
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) steps: Vec<StepState>,
    pub(super) status: Status,
    pub(super) deadline_ms: i64,
    /// Why it was cancelled.
    pub(super) reason: String,
    pub(super) requester: Requester,
    /// A step has failed: no others begin.
    is_failing: bool,
    /// Steps completed so far.
    completed: u32,
    /// Deliveries of its work since a step last ended.
    takes: u32,
    /// Work items queued so far.
    pub(super) works: u32,
}

/// A call to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) step: usize,
    attempt: u32,
    /// The call that undoes the step.
    pub(super) is_undo: bool,
}

/// What follows from an execution as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moves {
    pub(super) jobs: Vec<Job>,
    /// Something of the execution was changed.
    pub(super) is_changed: bool,
}

impl Execution {
    pub(super) fn new(
        execution_id: String,
        workflow: Workflow,
        parameters: BTreeMap<String, String>,
        deadline_ms: i64,
        requester: Requester,
    ) -> Execution {
        let pending = |step: &Step| StepState {
            step_id: step.id.clone(),
            service: step.service.clone(),
            operation: step.operation.clone(),
            status: StepStatus::Pending,
            started_at_ms: 0,
            completed_at_ms: 0,
            result: String::new(),
            error_message: String::new(),
            attempt: 0,
            lease_until_ms: 0,
            place: 0,
            is_stuck: false,
        };
        Execution {
            execution_id,
            workflow_id: workflow.id.clone(),
            progress_percentage: 0,
            is_over: false,
            steps: workflow.steps.iter().map(pending).collect(),
            workflow,
            parameters,
            status: Status::Running,
            deadline_ms,
            reason: String::new(),
            requester,
            is_failing: false,
            completed: 0,
            takes: 0,
            works: 1,
        }
    }

    /// As it is stored.
    pub(super) fn stored(self) -> Execution {
        Execution { progress_percentage: self.progress(), is_over: self.is_over(), ..self }
    }

    /// Nothing more happens to it.
    pub(super) fn is_over(&self) -> bool {
        self.status != Status::Running && self.next_to_undo().is_none()
    }

    /// Finished steps in percent, rounded down.
    pub(super) fn progress(&self) -> i32 {
        let is_open = |step: &&StepState| matches!(step.status, StepStatus::Pending | StepStatus::Running);
        let open = self.steps.iter().filter(is_open).count();
        let percent = 100 * (self.steps.len() - open) / self.steps.len().max(1);
        // All steps may be finished while some are still to be undone.
        if self.is_over() { percent as i32 } else { percent.min(99) as i32 }
    }

    /// A step's reply.
    pub(super) fn result(&self, step: usize) -> Vec<u8> {
        STANDARD.decode(&self.steps[step].result).unwrap_or_default()
    }

    /// True while somebody may be at one of its steps.
    pub(super) fn is_leased(&self, now_ms: i64) -> bool {
        self.steps.iter().any(|step| step.lease_until_ms > now_ms)
    }

    /// Somebody takes its work on.
    pub(super) fn take(&mut self) {
        self.takes += 1;
        if self.takes <= TAKES_MAX {
            return;
        }
        if self.status == Status::Running && !self.is_failing {
            self.fail_all(GAVE_UP, |_| true);
        } else {
            // Undoing it is what nobody survives.
            self.steps.iter_mut().for_each(|step| step.is_stuck = true);
        }
    }

    /// Begins what can begin now, and ends what has come to its end.
    pub(super) fn advance(&mut self, now_ms: i64) -> Moves {
        let mut moves = Moves::default();
        if self.status == Status::Running {
            if now_ms >= self.deadline_ms && self.has_open_step(now_ms) {
                // Whoever is at a step has the same deadline, and says what came of it.
                self.fail_all(DEADLINE, |step| step.lease_until_ms <= now_ms);
                moves.is_changed = true;
            }
            while let Some(step) = self.next_to_begin(now_ms) {
                moves.is_changed = true;
                moves.jobs.extend(self.begin(step, now_ms));
            }
            if self.steps.iter().any(|step| step.status == StepStatus::Running) {
                return moves;
            }
        }
        if let Some(step) = self.next_to_undo() {
            if self.steps[step].lease_until_ms <= now_ms {
                moves.is_changed = true;
                moves.jobs.push(self.lease(step, true, now_ms));
            }
            return moves;
        }
        if self.status == Status::Running {
            moves.is_changed = true;
            self.status = if self.is_failing { Status::Failed } else { Status::Completed };
        }
        moves
    }

    /// What came of a call; nothing where it was taken over, or nobody wants it any more.
    pub(super) fn finish(&mut self, job: &Job, outcome: Result<&[u8], &str>, now_ms: i64) {
        let step = &mut self.steps[job.step];
        if step.attempt != job.attempt {
            return;
        }
        self.takes = 0;
        step.lease_until_ms = 0;
        if job.is_undo {
            match outcome {
                Ok(_) => step.status = StepStatus::Compensated,
                Err(text) => {
                    step.is_stuck = true;
                    step.error_message = format!("not undone: {text}");
                }
            }
            return;
        }
        if step.status != StepStatus::Running {
            return;
        }
        let kept: usize = self.steps.iter().map(|step| step.result.len() * 3 / 4).sum();
        let outcome = match outcome {
            Ok(result) if kept + result.len() > RESULTS_MAX => Err("the replies are larger than an execution keeps"),
            outcome => outcome,
        };
        match outcome {
            Ok(result) => self.complete(job.step, result, now_ms),
            Err(text) => {
                let step = &mut self.steps[job.step];
                (step.status, step.completed_at_ms) = (StepStatus::Failed, now_ms);
                text.clone_into(&mut step.error_message);
                if !self.workflow.steps[job.step].optional {
                    self.fail();
                }
            }
        }
    }

    /// Ends it at somebody's wish.
    pub(super) fn cancel(&mut self, reason: &str, now_ms: i64) {
        self.status = Status::Cancelled;
        reason.clone_into(&mut self.reason);
        for step in &mut self.steps {
            step.lease_until_ms = 0;
            match step.status {
                StepStatus::Running => step.completed_at_ms = now_ms,
                StepStatus::Pending => {}
                _ => continue,
            }
            step.status = StepStatus::Cancelled;
        }
    }

    /// A step that nobody is at: one whose predecessors are finished, or one whose replica is lost.
    fn next_to_begin(&self, now_ms: i64) -> Option<usize> {
        let is_finished = |id: &String| {
            let index = self.workflow.steps.iter().position(|step| step.id == *id);
            index.is_some_and(|index| matches!(self.steps[index].status, StepStatus::Completed | StepStatus::Failed))
        };
        let mut steps = self.workflow.steps.iter().zip(&self.steps);
        steps.position(|(step, state)| match state.status {
            StepStatus::Pending => !self.is_failing && step.after.iter().all(is_finished),
            StepStatus::Running => state.lease_until_ms <= now_ms,
            _ => false,
        })
    }

    /// Begins a step, or skips it.
    fn begin(&mut self, index: usize, now_ms: i64) -> Option<Job> {
        let when = self.workflow.steps[index].when.as_ref();
        let value = |name: &String| self.parameters.get(name).map_or("", String::as_str);
        if when.is_some_and(|when| !when.holds(value(&when.parameter))) {
            let step = &mut self.steps[index];
            step.status = StepStatus::Completed;
            (step.started_at_ms, step.completed_at_ms) = (now_ms, now_ms);
            "skipped".clone_into(&mut step.error_message);
            return None;
        }
        let job = self.lease(index, false, now_ms);
        let step = &mut self.steps[index];
        (step.status, step.started_at_ms) = (StepStatus::Running, now_ms);
        Some(job)
    }

    fn lease(&mut self, index: usize, is_undo: bool, now_ms: i64) -> Job {
        let step = &mut self.steps[index];
        step.attempt += 1;
        step.lease_until_ms = now_ms + self.workflow.steps[index].longest_ms();
        Job { step: index, attempt: step.attempt, is_undo }
    }

    fn complete(&mut self, index: usize, result: &[u8], now_ms: i64) {
        self.completed += 1;
        let step = &mut self.steps[index];
        (step.status, step.completed_at_ms, step.place) = (StepStatus::Completed, now_ms, self.completed);
        step.result = STANDARD.encode(result);
    }

    /// The step to undo next: of those that were completed the last one.
    fn next_to_undo(&self) -> Option<usize> {
        let is_to_undo = |index: &usize| {
            let (step, state) = (&self.workflow.steps[*index], &self.steps[*index]);
            let is_done = state.status == StepStatus::Completed && state.place > 0;
            is_done && step.compensate.is_some() && !state.is_stuck
        };
        let is_undone = self.is_failing || self.status == Status::Cancelled;
        (0..self.steps.len())
            .filter(|index| is_undone && is_to_undo(index))
            .max_by_key(|index| self.steps[*index].place)
    }

    fn has_open_step(&self, now_ms: i64) -> bool {
        self.steps.iter().any(|step| match step.status {
            StepStatus::Pending => true,
            StepStatus::Running => step.lease_until_ms <= now_ms,
            _ => false,
        })
    }

    fn fail(&mut self) {
        self.is_failing = true;
        for step in self.steps.iter_mut().filter(|step| step.status == StepStatus::Pending) {
            step.status = StepStatus::Cancelled;
        }
    }

    /// Fails what is not finished, of running steps the lost ones, and says why.
    fn fail_all(&mut self, why: &str, is_lost: impl Fn(&StepState) -> bool) {
        for step in &mut self.steps {
            match step.status {
                StepStatus::Pending => {}
                StepStatus::Running if is_lost(step) => step.status = StepStatus::Failed,
                _ => continue,
            }
            step.lease_until_ms = 0;
            why.clone_into(&mut step.error_message);
        }
        self.fail();
    }
}

//! Declared workflows over several services: durable, cancellable, with compensation. `workflow` says what can be
//! declared, `execution` how one goes on, `engine` and `calls` carry it on.

mod admission;
mod calls;
mod catalog;
mod engine;
mod execution;
mod foundation;
mod pattern;
mod template;
mod workflow;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::VERSION;
use super::checks::{id, out_of_range, owner, required};
use super::common::{Error, Meta};
use super::events::ORCHESTRATION_STEP;
use super::notices::{notice, records};
use super::seed::{Part, seed, tenant_part};
use super::settings::LiveSettings;
use crate::fault::{Code, Fault};
use crate::store::{BucketConfig, Keys, Store, key};
use crate::worker::records::{Change, Current, EventId, Notice, RecordSeen, Records};
use crate::worker::{Consume, Context, Failed, Rule, Service};
use admission::{check_parameters, check_services};
use catalog::Catalog;
use execution::{Execution, Status};

/// How long an execution is kept.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Longest execution in seconds, and that of a request that says nothing.
const TIMEOUT_MAX_S: i32 = 3_600;
const TIMEOUT_DEFAULT_S: i32 = 60;
/// What a waiting call keeps of its time for the way back.
const WAIT_MARGIN: Duration = Duration::from_millis(500);
/// Executions that one replica carries on at a time.
const PARALLEL: usize = 64;
/// Full name of what events and watches tell.
const STATUS: &str = "orchestration.v1.GetStatusResponse";

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let bucket = BucketConfig { name: "tg_exec", ttl: Some(KEPT), history: 4 };
    let orchestration = Orchestration {
        executions: Records::open(store, records(settings, bucket)).await?,
        catalog: Catalog::new(settings),
        settings: settings.clone(),
    };
    Ok(Service::new("orchestration", VERSION)
        .keeping(&orchestration.executions)
        .sweeping("sweeper", &orchestration.executions)
        .sharing(orchestration)
        .unary("orchestration.v1.OrchestrationService/ExecuteWorkflow", Orchestration::execute)
        .declared("orchestration.v1.OrchestrationService/GetStatus")
        .hook_put("orchestration.v1.OrchestrationService/Cancel", Orchestration::cancel)
        .declared("orchestration.v1.OrchestrationService/WatchExecution")
        .consumer(Consume::new(ORCHESTRATION_STEP).parallel(PARALLEL), Orchestration::work)
        .task("workflows", Orchestration::follow_workflows)
        .task("watchdog", Orchestration::watchdog)
        .done())
}

struct Orchestration {
    executions: Records<Execution>,
    catalog: Catalog,
    settings: LiveSettings,
}

#[derive(Serialize, Deserialize)]
struct Execute {
    workflow_id: String,
    parameters: BTreeMap<String, String>,
    timeout_seconds: i32,
    required_services: Vec<String>,
    wait: bool,
}

#[derive(Serialize, Deserialize)]
struct Executed {
    execution_id: String,
    steps: Vec<StepShown>,
    status: String,
}

/// `orchestration.v1.WorkflowStep`.
#[derive(Serialize, Deserialize)]
struct StepShown {
    step_id: String,
    service: String,
    operation: String,
    status: String,
    started_at_ms: i64,
    completed_at_ms: i64,
    result: Bytes,
    error_message: String,
}

#[derive(Serialize, Deserialize)]
struct StatusShown {
    execution_id: String,
    workflow_id: String,
    steps: Vec<StepShown>,
    status: String,
    progress_percentage: i32,
    meta: Option<Meta>,
    error: Option<Error>,
}

#[derive(Serialize, Deserialize)]
struct Cancel {
    execution_id: String,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct Cancelled {
    success: bool,
    final_status: String,
}

impl Execution {
    fn steps_shown(&self) -> Vec<StepShown> {
        let shown = self.steps.iter().enumerate().map(|(index, step)| StepShown {
            step_id: step.step_id.clone(),
            service: step.service.clone(),
            operation: step.operation.clone(),
            status: step.status.name().to_owned(),
            started_at_ms: step.started_at_ms,
            completed_at_ms: step.completed_at_ms,
            result: self.result(index).into(),
            error_message: step.error_message.clone(),
        });
        shown.collect()
    }

    fn shown(&self) -> StatusShown {
        StatusShown {
            execution_id: self.execution_id.clone(),
            workflow_id: self.workflow_id.clone(),
            steps: self.steps_shown(),
            status: self.status.name().to_owned(),
            progress_percentage: self.progress(),
            meta: None,
            error: None,
        }
    }

    fn executed(&self) -> Executed {
        let (execution_id, status) = (self.execution_id.clone(), self.status.name().to_owned());
        Executed { execution_id, steps: self.steps_shown(), status }
    }
}

impl Orchestration {
    async fn execute(self: Arc<Self>, context: Context, request: Execute) -> Result<Executed, Failed<Executed>> {
        let enforces = self.settings.now().auth.enforce;
        if request.workflow_id.is_empty() {
            return Err(required("workflow_id").into());
        }
        for name in ["player_id", "user_id"] {
            let named = request.parameters.get(name).map_or("", String::as_str);
            owner(&context, enforces, &format!("parameters.{name}"), named)?;
        }
        let workflow = self.catalog.find(&context, &request.workflow_id).await;
        if let Some(workflow) = &workflow {
            check_parameters(workflow, &request.parameters)?;
        }
        let timeout_s = match request.timeout_seconds {
            0 => TIMEOUT_DEFAULT_S,
            seconds @ 1..=TIMEOUT_MAX_S => seconds,
            _ => return Err(out_of_range("timeout_seconds", 1, TIMEOUT_MAX_S).into()),
        };
        let Some(workflow) = workflow else {
            let text = format!("workflow {} is not defined", request.workflow_id);
            return Err(Fault::client(Code::NotFound, text).detail("field", "workflow_id").into());
        };
        check_services(&context, &workflow, &request.required_services).await?;
        let source =
            if context.idempotency_key().is_empty() { context.request_id() } else { context.idempotency_key() };
        let parts = [Part::Text("exec.v1"), tenant_part(context.tenant()), Part::Text(source)];
        let execution_id = format!("exe_{:016x}", seed(&parts));
        let place = key(&[context.tenant(), &execution_id]);
        let rule = |current: &Current<Execution>| {
            if let Some(running) = &current.value {
                return Ok(Change::nothing(running.executed()));
            }
            let mut parameters: BTreeMap<String, String> =
                workflow.parameters.iter().map(|(name, row)| (name.clone(), row.default.clone())).collect();
            parameters.extend(request.parameters.clone());
            let (deadline_ms, requester) = (current.now_ms + i64::from(timeout_s) * 1_000, context.requester());
            let execution =
                Execution::new(execution_id.clone(), (*workflow).clone(), parameters, deadline_ms, requester);
            let (reply, started) = (execution.executed(), status_notice(&context, &execution, "started")?);
            let work = work_notice(&context, &execution)?;
            Ok(self.kept(execution, reply, current.now_ms).event(started).event(work))
        };
        let done = self.executions.change(&context, &place, rule).await?;
        if request.wait {
            return Ok(self.until_over(&context, &place).await?.executed());
        }
        if done.is_repeat {
            return Ok(self.find(&context, &execution_id).await?.executed());
        }
        Ok(done.reply)
    }

    fn cancel(self: Arc<Self>, context: Context, request: Cancel) -> Result<impl Rule<Execution, Cancelled>, Fault> {
        Ok(move |current: &Current<Execution>| {
            let before = current.value.as_ref().ok_or_else(|| unknown(&request.execution_id))?;
            let reply = |success, status: Status| Cancelled { success, final_status: status.name().to_owned() };
            if before.status != Status::Running {
                return Ok(Change::nothing(reply(before.status == Status::Cancelled, before.status)));
            }
            let mut execution = before.clone();
            execution.cancel(&request.reason, current.now_ms);
            execution.works += 1;
            let work = work_notice(&context, &execution)?;
            let reply = reply(true, Status::Cancelled);
            Ok(self.changed(&context, before.status, execution, reply, current.now_ms)?.event(work))
        })
    }

    async fn find(&self, context: &Context, execution_id: &str) -> Result<Execution, Fault> {
        id("execution_id", execution_id)?;
        let found = self.executions.get_cached(context, &key(&[context.tenant(), execution_id])).await?;
        found.map(|document| document.value).ok_or_else(|| unknown(execution_id))
    }

    /// The execution once it is over, or as it is when the caller's time runs out.
    async fn until_over(&self, context: &Context, place: &str) -> Result<Execution, Fault> {
        let mut watch = self.executions.watch(Keys::One(place.to_owned()), None).await?;
        let left = context.time_left().unwrap_or(KEPT).saturating_sub(WAIT_MARGIN);
        let until = tokio::time::Instant::now() + left;
        let mut last = None;
        loop {
            let seen = tokio::select! {
                seen = watch.next(context) => seen?,
                () = tokio::time::sleep_until(until), if last.is_some() => break,
            };
            if let RecordSeen::Change { document: Some(document), .. } = seen {
                let is_over = document.value.is_over();
                last = Some(document.value);
                if is_over {
                    break;
                }
            }
        }
        last.ok_or_else(|| Fault::ours(Code::Internal, "an execution is gone that was just stored"))
    }

    /// The execution as it is from now on.
    fn kept<R>(&self, execution: Execution, reply: R, now_ms: i64) -> Change<Execution, R> {
        Change::put(execution.stored(), reply).expires_at_ms(now_ms + KEPT.as_millis() as i64)
    }

    /// The same, told where it has come to its end.
    fn changed<R>(
        &self,
        context: &Context,
        before: Status,
        execution: Execution,
        reply: R,
        now_ms: i64,
    ) -> Result<Change<Execution, R>, Fault> {
        let has_ended = before == Status::Running && execution.status != Status::Running;
        let told = has_ended.then(|| status_notice(context, &execution, "completed")).transpose()?;
        let change = self.kept(execution, reply, now_ms);
        Ok(if let Some(notice) = told { change.event(notice) } else { change })
    }

    async fn follow_workflows(self: Arc<Self>, context: Context) {
        self.catalog.follow(&context).await;
    }
}

/// The event of an execution's start or end.
fn status_notice(context: &Context, execution: &Execution, what: &str) -> Result<Notice, Fault> {
    let id = EventId::Text(format!("{}:{what}", execution.execution_id));
    let context = context.for_requester(&execution.requester);
    let subject = format!("evt.orchestration.workflow.{what}.v1");
    let notice = notice(&context, &subject, id, STATUS, &execution.shown())?;
    let notice = notice.with("workflow_id", execution.workflow.id.as_str());
    Ok(if what == "started" { notice } else { notice.with("status", execution.status.name()) })
}

/// The work item of an execution.
fn work_notice(context: &Context, execution: &Execution) -> Result<Notice, Fault> {
    let id = &execution.execution_id;
    let (subject, event_id) = (format!("work.orchestration.step.{id}"), format!("{id}:work:{}", execution.works));
    let work = engine::Work { execution_id: id.clone() };
    notice(context, &subject, EventId::Text(event_id), "orchestration.v1.GetStatusRequest", &work)
}

fn unknown(execution_id: &str) -> Fault {
    Fault::client(Code::NotFound, format!("execution {execution_id} does not exist")).detail("field", "execution_id")
}

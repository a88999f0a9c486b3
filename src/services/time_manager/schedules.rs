//! Events to come: kept until the world's clock reaches their time, then pushed to their callback by the replica that
//! claims them. A claim that its replica does not fulfil lapses, and another one pushes the same event.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::calendar::{GameTime, HOUR_MS};
use super::clock::Clock;
use super::{Kept, TimeManager, clock_key, world};
use crate::fault::{Code, Fault};
use crate::services::background::{Agenda, keep_running};
use crate::services::checks::{callback, id, invalid, out_of_range, required};
use crate::services::notices::{GameEvent, push};
use crate::services::seed::{Part, seed, tenant_part};
use crate::store::{Keys, key};
use crate::worker::records::{Change, Current, Document, RecordSeen, base64_text};
use crate::worker::{Context, Failed, Parting};

/// Largest payload.
const PAYLOAD_BYTES_MAX: usize = 256 * 1024;
/// Longest time between two occurrences, in game hours.
const RECURRENCE_HOURS_MAX: i32 = 8_760;
/// How long a fired schedule is kept.
const FIRED_KEPT_MS: i64 = 24 * 3_600 * 1_000;
/// How long a replica may take to push what it has claimed.
const CLAIM_MS: i64 = 5_000;
/// Pause before a schedule is looked at again that was not fired after all.
const AGAIN_MS: i64 = 200;
/// Schedules fired at the same time.
const PARALLEL: usize = 32;

/// A schedule as the store holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Schedule {
    tenant: String,
    schedule_id: String,
    what: What,
    /// Number of the next occurrence, from 1, and its game time; nothing once a single one was fired.
    occurrence: u64,
    next_ms: Option<i64>,
    claim: Option<Claim>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct What {
    event_id: String,
    world_id: String,
    scheduled_ms: i64,
    callback_subject: String,
    #[serde(with = "base64_text")]
    payload: Vec<u8>,
    /// 0 is once.
    recurrence_hours: i32,
}

/// An occurrence that is being pushed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Claim {
    occurrence: u64,
    scheduled_ms: i64,
    at_ms: i64,
    until_ms: i64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ScheduleEvent {
    event_id: String,
    scheduled_time: Option<GameTime>,
    callback_subject: String,
    payload: Bytes,
    recurring: bool,
    recurrence_hours: i32,
    world_id: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Scheduled {
    schedule_id: String,
    real_trigger_time_ms: i64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct CancelSchedule {
    schedule_id: String,
}

impl TimeManager {
    pub(super) async fn schedule(
        self: Arc<Self>,
        context: Context,
        request: ScheduleEvent,
    ) -> Result<Scheduled, Failed<Scheduled>> {
        let settings = self.settings.now();
        let what = check(&request, &settings.common.callbacks)?;
        let clock = self.clock(&context, &what.world_id).await?.value;
        let tenant = context.tenant();
        let waiting = self.schedules.list(&context, &Keys::Under(key(&[tenant]))).await?;
        let waiting = waiting.iter().filter(|(_, document)| document.value.next_ms.is_some()).count();
        let schedule_id = schedule_id(tenant, &what);
        let rule = |current: &Current<Schedule>| {
            let real_trigger_time_ms = clock.real_at(what.scheduled_ms);
            let reply = Scheduled { schedule_id: schedule_id.clone(), real_trigger_time_ms };
            if current.value.as_ref().is_some_and(|known| known.what == what) {
                return Ok(Change::nothing(reply));
            }
            if what.scheduled_ms <= clock.game_at(current.now_ms) {
                return Err(Fault::client(Code::FailedPrecondition, "scheduled_time is not in the future")
                    .detail("field", "scheduled_time")
                    .detail("reason", "in_past")
                    .into());
            }
            if current.value.is_some() {
                return Err(Fault::client(Code::Conflict, format!("event {} is scheduled otherwise", what.event_id))
                    .detail("field", "event_id")
                    .detail("reason", "exists")
                    .into());
            }
            if waiting >= settings.time_manager.max_schedules {
                let text = format!("{waiting} schedules are waiting: cancel some, or wait");
                return Err(Fault::client(Code::ResourceExhausted, text).detail("reason", "too_many_schedules").into());
            }
            let (what, next_ms) = (what.clone(), Some(what.scheduled_ms));
            let (tenant, schedule_id) = (tenant.to_owned(), schedule_id.clone());
            Ok(Change::put(Schedule { tenant, schedule_id, what, occurrence: 1, next_ms, claim: None }, reply))
        };
        let place = key(&[tenant, &schedule_id]);
        let write = async { Ok(self.schedules.change(&context, &place, rule).await?.reply) };
        self.repeats.once(&context, write).await
    }

    pub(super) async fn fire(self: Arc<Self>, context: Context) {
        keep_running(&context, "schedules", || self.follow_schedules(&context)).await;
    }

    async fn follow_schedules(&self, context: &Context) -> Result<(), Fault> {
        let mut times = self.times.watch(Keys::All, None).await?;
        let mut schedules = self.schedules.watch(Keys::All, None).await?;
        let mut timetable = Timetable::default();
        loop {
            let due = timetable.agenda.take_due(context.now_ms());
            let due: Vec<_> =
                due.into_iter().filter_map(|key| timetable.heads.get(&key).cloned().map(|head| (key, head))).collect();
            let fired = futures_util::stream::iter(due).map(|(key, head)| async move {
                let is_fired = self.fire_one(context, &key, &head).await;
                (key, is_fired)
            });
            let fired: Vec<_> = fired.buffer_unordered(PARALLEL).collect().await;
            for (key, is_fired) in fired {
                match is_fired {
                    // What it is now comes by on the watch.
                    Ok(true) => {}
                    Ok(false) => timetable.agenda.set(&key, context.now_ms() + AGAIN_MS),
                    Err(fault) => {
                        tracing::warn!(key, %fault, "a schedule was not fired and is tried again");
                        timetable.agenda.set(&key, context.now_ms() + AGAIN_MS);
                    }
                }
            }
            tokio::select! {
                seen = times.next(context) => if let RecordSeen::Change { key, document, .. } = seen?
                    && let Some(Document { value: Kept::Clock(clock), .. }) = document
                {
                    timetable.set_clock(&key, clock);
                },
                seen = schedules.next(context) => if let RecordSeen::Change { key, document, .. } = seen? {
                    timetable.set(&key, document.map(|document| document.value));
                },
                () = timetable.agenda.until_next(context.now_ms()) => {}
                _ = context.until_cancelled() => return Ok(()),
            }
        }
    }

    /// Claims an occurrence that is due, pushes it, and says so; false where none is due or another replica is at it.
    async fn fire_one(&self, context: &Context, place: &str, head: &Head) -> Result<bool, Fault> {
        let own = context.for_tenant(&head.tenant);
        let Some(Document { value: Kept::Clock(clock), .. }) = self.times.get(&own, &head.clock).await? else {
            return Ok(false);
        };
        let rule = |current: &Current<Schedule>| match current
            .value
            .clone()
            .map(|known| known.claimed(&clock, current.now_ms))
        {
            None => Ok(Change::nothing(None)),
            Some(None) => Ok(Change::nothing(None)),
            Some(Some(schedule)) => Ok(Change::put(schedule.clone(), Some(schedule))),
        };
        let claimed = self.schedules.change(&own, place, rule).await.map_err(|failed| failed.fault)?.reply;
        let Some((schedule, claim)) =
            claimed.and_then(|schedule| schedule.claim.clone().map(|claim| (schedule, claim)))
        else {
            return Ok(false);
        };
        push(&own, &schedule.what.callback_subject, &schedule.event(&own, &claim)).await?;
        let rule = |current: &Current<Schedule>| match &current.value {
            Some(known) if known.claim.as_ref().is_some_and(|other| other.occurrence == claim.occurrence) => {
                let expires_at_ms = if known.next_ms.is_none() { current.now_ms + FIRED_KEPT_MS } else { 0 };
                let after = Schedule { claim: None, ..known.clone() };
                Ok(Change::put(after, ()).expires_at_ms(expires_at_ms))
            }
            _ => Ok(Change::nothing(())),
        };
        self.schedules.change(&own, place, rule).await.map_err(|failed| failed.fault)?;
        Ok(true)
    }
}

impl Schedule {
    /// The schedule with its next occurrence claimed, or with a lapsed claim taken over; nothing where neither is due.
    fn claimed(self, clock: &Clock, now_ms: i64) -> Option<Schedule> {
        let until_ms = now_ms + CLAIM_MS;
        if let Some(claim) = self.claim {
            let claim = (claim.until_ms <= now_ms).then_some(Claim { until_ms, ..claim })?;
            return Some(Schedule { claim: Some(claim), ..self });
        }
        let game_ms = clock.game_at(now_ms);
        let scheduled_ms = self.next_ms.filter(|next_ms| *next_ms <= game_ms)?;
        let claim = Some(Claim { occurrence: self.occurrence, scheduled_ms, at_ms: now_ms, until_ms });
        let step_ms = i64::from(self.what.recurrence_hours) * HOUR_MS;
        let next_ms = (step_ms > 0).then(|| scheduled_ms + ((game_ms - scheduled_ms) / step_ms + 1) * step_ms);
        Some(Schedule { claim, next_ms, occurrence: self.occurrence + 1, ..self })
    }

    fn event(&self, context: &Context, claim: &Claim) -> GameEvent {
        let metadata = [
            ("producer", context.service().to_owned()),
            ("tenant_id", self.tenant.clone()),
            ("schedule_id", self.schedule_id.clone()),
            ("event_id", self.what.event_id.clone()),
            ("world_id", self.what.world_id.clone()),
            ("scheduled", GameTime::at(claim.scheduled_ms).iso()),
            ("occurrence", claim.occurrence.to_string()),
        ];
        GameEvent {
            event_id: format!("{}:{}", self.schedule_id, claim.occurrence),
            event_type: "time.schedule.fired".to_owned(),
            timestamp_ms: claim.at_ms,
            payload: self.what.payload.clone().into(),
            metadata: metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            priority: 5,
        }
    }
}

/// A schedule goes while it waits for its time.
#[allow(clippy::needless_pass_by_value, reason = "hooks own what they are given")]
pub(super) fn cancel(_: Context, _: CancelSchedule) -> Result<impl Parting<Schedule>, Fault> {
    Ok(|schedule: Document<&Schedule>| match schedule.value.next_ms {
        Some(_) => Ok(Vec::new()),
        None => {
            let text = "the schedule has fired: there is nothing to cancel";
            Err(Fault::client(Code::FailedPrecondition, text).detail("reason", "fired"))
        }
    })
}

/// What a replica knows of all schedules: when to look at which.
#[derive(Default)]
struct Timetable {
    clocks: HashMap<String, Clock>,
    heads: BTreeMap<String, Head>,
    agenda: Agenda,
}

/// A schedule without what only its event needs.
#[derive(Clone)]
struct Head {
    tenant: String,
    /// Key of its clock.
    clock: String,
    next_ms: Option<i64>,
    claimed_until_ms: Option<i64>,
}

impl Timetable {
    fn set_clock(&mut self, place: &str, clock: Clock) {
        self.clocks.insert(place.to_owned(), clock);
        let moved: Vec<String> =
            self.heads.iter().filter(|(_, head)| head.clock == place).map(|(key, _)| key.clone()).collect();
        for key in moved {
            self.plan(&key);
        }
    }

    fn set(&mut self, place: &str, schedule: Option<Schedule>) {
        let head = schedule.map(|schedule| Head {
            clock: clock_key(&schedule.tenant, &schedule.what.world_id),
            tenant: schedule.tenant,
            next_ms: schedule.next_ms,
            claimed_until_ms: schedule.claim.map(|claim| claim.until_ms),
        });
        match head {
            Some(head) if head.next_ms.is_some() || head.claimed_until_ms.is_some() => {
                self.heads.insert(place.to_owned(), head);
                self.plan(place);
            }
            _ => {
                self.heads.remove(place);
                self.agenda.remove(place);
            }
        }
    }

    fn plan(&mut self, place: &str) {
        let Some(head) = self.heads.get(place) else { return };
        let at_ms = match (head.claimed_until_ms, head.next_ms, self.clocks.get(&head.clock)) {
            (Some(until_ms), _, _) => until_ms,
            (None, Some(next_ms), Some(clock)) => clock.real_at(next_ms),
            _ => return self.agenda.remove(place),
        };
        self.agenda.set(place, at_ms);
    }
}

fn schedule_id(tenant: &str, what: &What) -> String {
    let parts =
        [Part::Text("time.schedule.v1"), tenant_part(tenant), Part::Text(&what.world_id), Part::Text(&what.event_id)];
    format!("sch_{:016x}", seed(&parts))
}

/// Everything that is wrong with the request itself.
fn check(request: &ScheduleEvent, callbacks: &[String]) -> Result<What, Fault> {
    id("event_id", &request.event_id)?;
    let Some(scheduled_time) = &request.scheduled_time else { return Err(required("scheduled_time")) };
    scheduled_time.check("scheduled_time")?;
    callback("callback_subject", &request.callback_subject, callbacks)?;
    if request.payload.len() > PAYLOAD_BYTES_MAX {
        return Err(invalid("payload", "too_long", format!("payload has more than {PAYLOAD_BYTES_MAX} bytes")));
    }
    let hours = request.recurrence_hours;
    if request.recurring && !(1..=RECURRENCE_HOURS_MAX).contains(&hours) {
        return Err(out_of_range("recurrence_hours", 1, RECURRENCE_HOURS_MAX));
    }
    if !request.recurring && hours != 0 {
        let text = "recurrence_hours needs recurring";
        return Err(invalid("recurrence_hours", "conflicting_fields", text));
    }
    Ok(What {
        event_id: request.event_id.clone(),
        world_id: world(&request.world_id)?.to_owned(),
        scheduled_ms: scheduled_time.game_ms(),
        callback_subject: request.callback_subject.clone(),
        payload: request.payload.to_vec(),
        recurrence_hours: hours,
    })
}

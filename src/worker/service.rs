//! A service as a row of methods: each with a handler over plain structs, registered by its full name.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StartProblem;
use super::beginning::{self, Beginning};
use super::consume::{Consume, Consuming, Setback};
use super::context::Context;
use super::declared::{Bind, Kept, Rows};
use super::guard::{self, Guard};
use super::reply;
use super::shapes::{check_stream, check_unary};
use super::streams::{Chunks, Outlet};
use super::tasks::Task;
use crate::fault::{Code, Fault};
use crate::snapshot::{Method, Snapshot, Streaming};
use crate::store::{Logged, Store};
use crate::transcode::from_wire;

/// Why a method is not served that the tables do not have.
pub(super) const UNKNOWN: &str = "the tables do not have it: correct the name, list its service under `annotations`, or \
                                  add a route that calls it";

/// What a handler runs as.
pub(super) type Running<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// A request handled: the bytes of the reply, its error included; `Err` where it failed, for the statistics.
pub(super) type Answer = Result<Vec<u8>, (Fault, Vec<u8>)>;

/// Decodes a request and runs its handler; fails where the request does not decode.
pub(super) type UnaryCall = Arc<dyn Fn(Context, &Bytes) -> Result<Running<Answer>, Fault> + Send + Sync>;
pub(super) type StreamCall =
    Arc<dyn Fn(Context, &Bytes, Outlet) -> Result<Running<Result<(), Fault>>, Fault> + Send + Sync>;
type Check = fn(&Method) -> Vec<String>;

/// A handler without its types.
#[derive(Clone)]
pub(super) enum Call {
    Unary(UnaryCall),
    Stream(StreamCall),
}

/// Where a method's call comes from.
enum Handler {
    Call(Call, Check),
    /// Its declaration, what the service keeps, and a hook; true where it streams.
    Hook(Bind, bool),
}

struct Row {
    method: String,
    handler: Handler,
}

impl Row {
    fn streams(&self) -> bool {
        matches!(self.handler, Handler::Call(Call::Stream(_), _) | Handler::Hook(_, true))
    }

    /// The call, or everything in which it does not fit its method.
    fn call(&self, kept: &Kept, method: &Method) -> Result<Call, Vec<String>> {
        match &self.handler {
            Handler::Hook(bind, _) => bind(kept, method),
            Handler::Call(call, check) => match check(method) {
                problems if problems.is_empty() => Ok(call.clone()),
                problems => Err(problems),
            },
        }
    }
}

/// A failed request whose reply says more than the error: fields that its message has for that.
pub struct Failed<R> {
    /// The error.
    pub fault: Fault,
    /// The other fields of the reply.
    pub reply: Option<Box<R>>,
}

impl<R> Failed<R> {
    /// An error whose reply has other fields as well.
    pub fn with(fault: Fault, reply: R) -> Failed<R> {
        Failed { fault, reply: Some(Box::new(reply)) }
    }
}

impl<R> From<Fault> for Failed<R> {
    fn from(fault: Fault) -> Failed<R> {
        Failed { fault, reply: None }
    }
}

/// A service: its name, and its methods with their handlers.
///
/// Requests, replies and chunks are plain structs that derive `Serialize` and `Deserialize`, with the message's fields
/// by proto name. They may leave out what the house style keeps for itself: context, error, index and last mark.
pub struct Service {
    name: String,
    version: String,
    rows: Vec<Row>,
    tasks: Vec<Task>,
    consumers: Vec<Consuming>,
    pub(super) declared_rows: Rows,
    /// What its hooks work on.
    kept: Kept,
    /// What is there before it handles a tenant's first request.
    pub(super) beginnings: Vec<Arc<dyn Beginning>>,
    pub(super) guards: Vec<Guard>,
}

impl Service {
    /// A service without methods yet. The name is `[A-Za-z0-9_-]`, the version `1.2.3` (NATS ADR-32).
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Service {
        Service {
            name: name.into(),
            version: version.into(),
            rows: Vec::new(),
            tasks: Vec::new(),
            consumers: Vec::new(),
            declared_rows: Rows::default(),
            kept: Kept::default(),
            beginnings: Vec::new(),
            guards: Vec::new(),
        }
    }

    /// Handlers added from here on get this state in front of their context, until [`Sharing::done`].
    pub fn sharing<S: Send + Sync + 'static>(self, state: S) -> Sharing<S> {
        Sharing { service: self, state: Arc::new(state) }
    }

    /// Adds a method that answers once. `method` is its full name, `quest.v1.QuestService/GenerateQuest`.
    #[must_use]
    pub fn unary<Q, R, E, F, Fut>(mut self, method: &str, handler: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
        E: Into<Failed<R>> + Send + 'static,
        F: Fn(Context, Q) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
    {
        let call: UnaryCall = Arc::new(move |context, payload| {
            let request = read::<Q>(&context, payload)?;
            let handled = handler(context.clone(), request);
            Ok(Box::pin(async move {
                let result = handled.await;
                answered(&context, result.map_err(Into::into))
            }))
        });
        let handler = Handler::Call(Call::Unary(call), check_unary::<Q, R>);
        self.rows.push(Row { method: method.to_owned(), handler });
        self
    }

    /// Adds a method that answers once and computes for it: its handler runs on a thread of the pool, where it keeps
    /// nobody waiting ([`Context::blocking`]). Past its deadline the caller is told so, and [`Context::cancelled`] tells
    /// the handler.
    #[must_use]
    pub fn blocking<Q, R, E, F>(self, method: &str, handler: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
        E: Into<Failed<R>> + Send + 'static,
        F: Fn(Context, Q) -> Result<R, E> + Send + Sync + 'static,
    {
        let handler = Arc::new(handler);
        self.unary(method, move |context: Context, request: Q| {
            let (handler, own) = (handler.clone(), context.clone());
            async move { context.blocking(move || handler(own, request)).await }
        })
    }

    /// Adds a method that answers with a stream of chunks; a method may have both kinds of handlers where its requests
    /// say which one they want.
    ///
    /// The stream ends when the handler returns: `Err` as its error, `Ok` with an empty last chunk unless
    /// [`Chunks::finish`] has sent one.
    #[must_use]
    pub fn stream<Q, C, F, Fut>(mut self, method: &str, handler: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        C: Serialize + DeserializeOwned + Send + 'static,
        F: Fn(Context, Q, Chunks<C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let call: StreamCall = Arc::new(move |context, payload, outlet| {
            let request = read::<Q>(&context, payload)?;
            Ok(Box::pin(handler(context, request, Chunks::new(outlet))))
        });
        let handler = Handler::Call(Call::Stream(call), check_stream::<Q, C>);
        self.rows.push(Row { method: method.to_owned(), handler });
        self
    }

    /// Adds a method whose handler reads and writes the bytes itself.
    pub(super) fn encoded(mut self, method: &str, call: Call) -> Service {
        self.rows.push(Row { method: method.to_owned(), handler: Handler::Call(call, |_| Vec::new()) });
        self
    }

    /// Adds a method whose declaration has a hook.
    pub(super) fn hooked(mut self, method: &str, streams: bool, bind: Bind) -> Service {
        self.rows.push(Row { method: method.to_owned(), handler: Handler::Hook(bind, streams) });
        self
    }

    pub(super) fn kept_mut(&mut self) -> &mut Kept {
        &mut self.kept
    }

    /// Opens what its hooks need, where it has any.
    pub(super) async fn open_kept(&mut self, store: &Store) -> Result<(), Fault> {
        if self.rows.iter().any(|row| matches!(row.handler, Handler::Hook(..))) {
            self.kept.open(store).await?;
        }
        Ok(())
    }

    /// Adds work that runs beside the methods, on every replica: a sweeper, a ticker. It gets a context of the
    /// service's own account and ends once [`Context::until_cancelled`] returns; one that panics is started anew.
    #[must_use]
    pub fn task<F, Fut>(mut self, name: &'static str, task: F) -> Service
    where
        F: Fn(Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.tasks.push(Task { name, start: Arc::new(move |context| Box::pin(task(context))) });
        self
    }

    pub(super) fn take_tasks(&mut self) -> Vec<Task> {
        std::mem::take(&mut self.tasks)
    }

    pub(super) fn add_consumer(&mut self, consuming: Consuming) {
        self.consumers.push(consuming);
    }

    pub(super) fn take_consumers(&mut self) -> Vec<Consuming> {
        std::mem::take(&mut self.consumers)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Everything in which the handlers do not fit the snapshot.
    pub(super) fn check(&self, snapshot: &Snapshot) -> Vec<StartProblem> {
        let mut problems = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            let mut problem = |text: String| {
                problems.push(StartProblem { service: self.name.clone(), method: row.method.clone(), text });
            };
            let is_stream = row.streams();
            let is_same = |other: &Row| other.method == row.method && other.streams() == is_stream;
            if self.rows[..index].iter().any(is_same) {
                problem("it is registered twice: remove one".to_owned());
            }
            let Some(method) = snapshot.method(&row.method) else {
                problem(UNKNOWN.to_owned());
                continue;
            };
            match method.streaming {
                Streaming::Unary if is_stream => problem("it never streams: register it with `unary`".to_owned()),
                Streaming::Server if !is_stream => problem("it always streams: register it with `stream`".to_owned()),
                _ => {}
            }
            row.call(&self.kept, method).err().into_iter().flatten().for_each(&mut problem);
        }
        let has_handler = |method: &str| self.rows.iter().any(|row| row.method == method);
        problems.extend(self.declared_rows.check(&self.name, snapshot, has_handler));
        problems.extend(self.kept.missing(&self.name, has_handler));
        problems.extend(guard::problems(&self.guards, &self.name, snapshot));
        problems
    }

    /// Its methods as the snapshot has them, each with its handlers.
    pub(super) fn into_methods(self, snapshot: &Snapshot) -> Vec<(Arc<Method>, Vec<Call>)> {
        let mut methods: Vec<(Arc<Method>, Vec<Call>)> = Vec::new();
        for row in self.rows {
            let Some(method) = snapshot.method(&row.method) else { continue };
            // Problems have kept the worker from starting.
            let Ok(call) = row.call(&self.kept, method) else { continue };
            let call = beginning::behind(guard::behind(call, &self.guards, method), &self.beginnings);
            match methods.iter_mut().find(|(known, _)| known.name == method.name) {
                Some((_, calls)) => calls.push(call),
                None => methods.push((method.clone(), vec![call])),
            }
        }
        methods
    }
}

/// A service whose handlers share a state: `async fn update(self: Arc<Self>, context: Context, request: Update)` is a
/// handler as it stands.
pub struct Sharing<S> {
    pub(super) service: Service,
    state: Arc<S>,
}

impl<S: Send + Sync + 'static> Sharing<S> {
    /// The service with more of it, made with the state.
    pub(super) fn with(self, more: impl FnOnce(Service, Arc<S>) -> Service) -> Sharing<S> {
        Sharing { service: more(self.service, self.state.clone()), state: self.state }
    }

    /// [`Service::unary`] with the state in front.
    #[must_use]
    pub fn unary<Q, R, E, F, Fut>(mut self, method: &str, handler: F) -> Sharing<S>
    where
        Q: DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
        E: Into<Failed<R>> + Send + 'static,
        F: Fn(Arc<S>, Context, Q) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
    {
        let state = self.state.clone();
        self.service = self.service.unary(method, move |context, request| handler(state.clone(), context, request));
        self
    }

    /// [`Service::stream`] with the state in front.
    #[must_use]
    pub fn stream<Q, C, F, Fut>(mut self, method: &str, handler: F) -> Sharing<S>
    where
        Q: DeserializeOwned + Send + 'static,
        C: Serialize + DeserializeOwned + Send + 'static,
        F: Fn(Arc<S>, Context, Q, Chunks<C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let state = self.state.clone();
        let handler = move |context, request, chunks| handler(state.clone(), context, request, chunks);
        self.service = self.service.stream(method, handler);
        self
    }

    /// [`Service::task`] with the state in front.
    #[must_use]
    pub fn task<F, Fut>(mut self, name: &'static str, task: F) -> Sharing<S>
    where
        F: Fn(Arc<S>, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let state = self.state.clone();
        self.service = self.service.task(name, move |context| task(state.clone(), context));
        self
    }

    /// [`Service::consumer`] with the state in front.
    #[must_use]
    pub fn consumer<F, Fut>(mut self, consume: impl Into<Consume>, handler: F) -> Sharing<S>
    where
        F: Fn(Arc<S>, Context, Logged) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Setback>> + Send + 'static,
    {
        let state = self.state.clone();
        self.service = self.service.consumer(consume, move |context, event| handler(state.clone(), context, event));
        self
    }

    /// The service with all of it.
    pub fn done(self) -> Service {
        self.service
    }
}

/// The answer with a handler's result.
pub(super) fn answered<R: Serialize>(context: &Context, result: Result<R, Failed<R>>) -> Answer {
    match result {
        Ok(value) => reply::success(context, &value),
        Err(Failed { fault, reply }) => Err(reply::failure(context, fault, reply.as_deref())),
    }
}

/// The request as the handler's struct.
pub(super) fn read<Q: DeserializeOwned>(context: &Context, payload: &Bytes) -> Result<Q, Fault> {
    let method = context.method();
    from_wire(&method.tables, method.request, payload).map_err(|error| {
        Fault::client(
            Code::InvalidArgument,
            format!("the request does not decode as `{}`: {error}", method.request_name),
        )
        .detail("reason", "malformed")
        .detail("field", error.path())
    })
}

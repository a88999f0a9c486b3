//! An endpoint of the OpenAI chat-completions form, which says what a test wants and keeps what it was asked.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::Value;

#[derive(Clone)]
pub struct Model(Arc<Mutex<State>>);

struct State {
    statuses: Vec<u16>,
    stream: String,
    asked: Vec<(HeaderMap, Value)>,
}

impl Model {
    /// With its base URL. It answers with these statuses in turn, the last one for ever, and with that stream where the
    /// status is 200.
    pub async fn start(statuses: &[u16], stream: &str) -> (Model, String) {
        let state = State { statuses: statuses.to_vec(), stream: stream.to_owned(), asked: Vec::new() };
        let model = Model(Arc::new(Mutex::new(state)));
        let (answering, listener) = (model.clone(), tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let handler = move |headers: HeaderMap, body: Bytes| async move { answering.answer(headers, &body) };
        let router = Router::new().route("/v1/chat/completions", post(handler));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (model, format!("http://{address}/v1"))
    }

    /// One that says a text as a whole.
    pub async fn saying(text: &str, statuses: &[u16]) -> (Model, String) {
        let part = serde_json::json!({ "choices": [{ "delta": { "content": text }, "finish_reason": "stop" }] });
        Model::start(statuses, &format!("data: {part}\n\ndata: [DONE]\n\n")).await
    }

    fn answer(&self, headers: HeaderMap, body: &[u8]) -> Response {
        let mut state = self.0.lock().unwrap();
        state.asked.push((headers, serde_json::from_slice(body).unwrap()));
        let status = if state.statuses.len() > 1 { state.statuses.remove(0) } else { state.statuses[0] };
        let text = if status == 200 { state.stream.clone() } else { "{}".to_owned() };
        (StatusCode::from_u16(status).unwrap(), text).into_response()
    }

    /// From now on it answers.
    pub fn recover(&self) {
        self.0.lock().unwrap().statuses = vec![200];
    }

    /// Headers and bodies of all requests.
    pub fn asked(&self) -> Vec<(HeaderMap, Value)> {
        self.0.lock().unwrap().asked.clone()
    }
}

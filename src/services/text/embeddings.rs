//! Any endpoint that speaks the OpenAI embeddings form: texts in, vectors out.

use serde::{Deserialize, Serialize};

use super::endpoint::{client, failure, refusal, unavailable};
use crate::fault::{Code, Fault};
use crate::services::settings::Vectors;

/// Connections to the endpoint.
pub(in crate::services) struct Embeddings(reqwest::Client);

#[derive(Serialize)]
struct Ask<'a> {
    model: &'a str,
    input: &'a [&'a str],
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    index: usize,
    embedding: Vec<f32>,
}

impl Embeddings {
    pub(in crate::services) fn new() -> Result<Embeddings, Fault> {
        client().map(Embeddings)
    }

    /// One vector a text, in their order. Fails with UNAVAILABLE where the endpoint cannot, DEADLINE_EXCEEDED where it
    /// is silent, and with what it says where it refuses.
    pub(in crate::services) async fn vectors(
        &self,
        settings: &Vectors,
        texts: &[&str],
    ) -> Result<Vec<Vec<f32>>, Fault> {
        let body = serde_json::to_vec(&Ask { model: &settings.model, input: texts })
            .map_err(|error| Fault::ours(Code::Internal, "the request does not encode").internal(error.to_string()))?;
        let url = format!("{}/embeddings", settings.base_url);
        let mut request = self.0.post(url).header("content-type", "application/json").body(body);
        if let Some(key) = &settings.key {
            request = request.bearer_auth(key.text());
        }
        let answer = request.send().await.map_err(|error| failure(&error))?;
        let status = answer.status().as_u16();
        if status != 200 {
            return Err(refusal(status));
        }
        let bytes = answer.bytes().await.map_err(|error| failure(&error))?;
        read(&bytes, texts.len(), settings.dimensions as usize)
    }
}

/// The vectors of an answer, as many and as long as they have to be.
fn read(bytes: &[u8], count: usize, dimensions: usize) -> Result<Vec<Vec<f32>>, Fault> {
    let answer: Answer = serde_json::from_slice(bytes).map_err(|error| unavailable(error.to_string()))?;
    let mut rows = answer.data;
    rows.sort_by_key(|row| row.index);
    if rows.len() != count || rows.iter().enumerate().any(|(at, row)| row.index != at) {
        return Err(unavailable(format!("{} vectors for {count} texts", rows.len())));
    }
    match rows.iter().find(|row| row.embedding.len() != dimensions) {
        Some(row) => Err(unavailable(format!("a vector of {} numbers instead of {dimensions}", row.embedding.len()))),
        None => Ok(rows.into_iter().map(|row| row.embedding).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_whole_vector_for_each_text() {
        let text = br#"{"data":[{"index":1,"embedding":[0,1]},{"index":0,"embedding":[1,0.5]}],"model":"m"}"#;
        assert_eq!(read(text, 2, 2).unwrap(), [[1.0, 0.5], [0.0, 1.0]]);
        let problem = |count, dimensions| read(text, count, dimensions).unwrap_err().internal_text().map(str::to_owned);
        assert_eq!(problem(3, 2).as_deref(), Some("2 vectors for 3 texts"));
        assert_eq!(problem(2, 3).as_deref(), Some("a vector of 2 numbers instead of 3"));
    }
}

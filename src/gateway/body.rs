//! The two kinds of answer bodies: bytes that are there, and a stream of events.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::events::Events;
use super::http2;

/// Most bytes of one piece: what a client has no window for waits here, where it is watched.
const PIECE: usize = 16 * 1024;

/// The body of an answer.
pub(super) enum Answer {
    /// Bytes that are there.
    Full(Option<Bytes>),
    /// Events until their end.
    Events(Box<Events>),
}

impl Answer {
    /// A body of bytes.
    pub(super) fn full(bytes: impl Into<Bytes>) -> Answer {
        Answer::Full(Some(bytes.into()).filter(|bytes: &Bytes| !bytes.is_empty()))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        http2::note_asked();
        let piece = match &mut *self {
            Answer::Full(Some(bytes)) if bytes.len() > PIECE => Some(bytes.split_to(PIECE)),
            Answer::Full(bytes) => bytes.take(),
            Answer::Events(events) => ready!(events.poll_frame(context)),
        };
        if piece.is_some() {
            http2::note_given();
        }
        Poll::Ready(piece.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Answer::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Answer::Events(_) => SizeHint::default(),
        }
    }
}

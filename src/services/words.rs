//! Text told word by word, as fast as `common.text.pacing` says.

use std::time::Duration;

use crate::fault::Fault;
use crate::worker::Chunks;

/// Sends each word with the white space behind it, with a pause between two of them. Fails as [`Chunks::send`] does.
pub(super) async fn tell_words<C: serde::Serialize>(
    chunks: &mut Chunks<C>,
    text: &str,
    pacing: Duration,
    piece: impl Fn(String) -> C,
) -> Result<(), Fault> {
    for (index, word) in text.split_inclusive([' ', '\n']).enumerate() {
        if index > 0 && !pacing.is_zero() {
            tokio::time::sleep(pacing).await;
        }
        chunks.send(&piece(word.to_owned())).await?;
    }
    Ok(())
}

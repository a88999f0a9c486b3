//! Where a reply belongs, as its subject says it: `PREFIX.INDEX-GENERATION`, both numbers in hexadecimal.

/// A slot and its generation; `None` for subjects that are not ours.
pub(super) type Address = Option<(usize, u32)>;

/// The subject of a slot in one of its generations. `prefix` ends with a dot.
pub(super) fn subject(prefix: &str, index: u32, generation: u32) -> async_nats::Subject {
    async_nats::Subject::from(format!("{prefix}{index:x}-{generation:x}"))
}

/// The slot that a subject names.
pub(super) fn read(prefix: &str, subject: &[u8]) -> Address {
    let token = subject.strip_prefix(prefix.as_bytes())?;
    let dash = token.iter().position(|byte| *byte == b'-')?;
    Some((number(&token[..dash])? as usize, number(&token[dash + 1..])?))
}

fn number(digits: &[u8]) -> Option<u32> {
    if !(1..=8).contains(&digits.len()) {
        return None;
    }
    digits.iter().try_fold(0, |sum, digit| Some(sum << 4 | (*digit as char).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_names_its_slot_and_nothing_else_does() {
        for (index, generation) in [(0, 0), (1, 2), (0x7fff, u32::MAX), (u32::MAX, 0)] {
            let subject = subject("_INBOX.u.r.x.", index, generation);
            assert_eq!(read("_INBOX.u.r.x.", subject.as_bytes()), Some((index as usize, generation)));
        }
        for token in ["", "1", "-", "1-", "-1", "1-2-3", "1-2.3", "g-1", "1-+2", "111111111-1", "1-2 "] {
            assert_eq!(read("p.", format!("p.{token}").as_bytes()), None, "`{token}`");
        }
        assert_eq!(read("p.", b"q.1-2"), None);
    }
}

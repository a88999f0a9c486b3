//! Texts of others on a terminal: what would move its cursor, colour it or turn its reading order is shown, not done.

use std::borrow::Cow;

/// A text on one line.
pub(super) fn line(text: &str) -> Cow<'_, str> {
    shown(text, |_| false)
}

/// A text that may have lines and columns.
pub(super) fn lines(text: &str) -> Cow<'_, str> {
    shown(text, |sign| matches!(sign, '\n' | '\t'))
}

fn shown(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    // The latter are Unicode's marks of direction.
    let acts = |sign: char| {
        sign.is_control() || matches!(sign, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.chars().any(|sign| acts(sign) && !is_kept(sign)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for sign in text.chars() {
        if acts(sign) && !is_kept(sign) {
            out.extend(sign.escape_default());
        } else {
            out.push(sign);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_shown() {
        for (text, one, many) in [
            ("größe 🌊", "größe 🌊", "größe 🌊"),
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("web-1\nweb-2\tapplied\r", "web-1\\nweb-2\\tapplied\\r", "web-1\nweb-2\tapplied\\r"),
            ("\u{9b}31m\u{202e}txt\u{7}", "\\u{9b}31m\\u{202e}txt\\u{7}", "\\u{9b}31m\\u{202e}txt\\u{7}"),
        ] {
            assert_eq!((line(text), lines(text)), (one.into(), many.into()), "{text:?}");
        }
    }
}

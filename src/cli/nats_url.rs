//! User and password in a NATS address, as other NATS tools take them; the client wants them beside it.

/// The addresses, joined by commas, without user and password, and the first ones found in them.
pub(super) fn split(urls: &str) -> (String, Option<(String, String)>) {
    let mut login = None;
    let bare: Vec<String> = urls
        .split(',')
        .map(|url| {
            let url = url.trim();
            let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
            let Some((before, host)) = rest.rsplit_once('@') else { return url.to_owned() };
            let (user, password) = before.split_once(':').unwrap_or((before, ""));
            login.get_or_insert_with(|| (decoded(user), decoded(password)));
            format!("{scheme}://{host}")
        })
        .collect();
    (bare.join(","), login)
}

/// Percent-encoded bytes as they are meant; what is no such encoding stays.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_are_taken_out_of_the_address() {
        let login = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        for (urls, bare, found) in [
            ("nats://a:4222", "nats://a:4222", None),
            ("a:4222", "a:4222", None),
            ("nats://me:secret@a:4222", "nats://a:4222", login("me", "secret")),
            ("tls://me:s%40c%2Fr%@a", "tls://a", login("me", "s@c/r%")),
            ("me@a", "nats://a", login("me", "")),
            ("nats://one:1@a, nats://two:2@b", "nats://a,nats://b", login("one", "1")),
        ] {
            assert_eq!(split(urls), (bare.to_owned(), found), "{urls}");
        }
    }
}

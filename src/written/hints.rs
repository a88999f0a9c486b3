//! The name that somebody probably meant.

/// The nearest known name, as a hint.
pub(crate) fn did_you_mean(wanted: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|name| (distance(wanted, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= wanted.len() / 3 + 1 => format!("did you mean `{name}`?"),
        _ if known.len() <= 8 && !known.is_empty() => format!("there are: {}", known.join(", ")),
        _ => String::new(),
    }
}

/// What to say about a key that nobody knows: the text, and a hint that may be empty.
pub(super) fn unknown_key(name: &str, known: &[&str]) -> (String, String) {
    let text = match known.is_empty() {
        true => format!("unknown field `{name}`: there are none here"),
        false => format!("unknown field `{name}`, expected one of {}", known.join(", ")),
    };
    let hint = Some(did_you_mean(name, known)).filter(|hint| hint.starts_with("did you mean"));
    (text, hint.unwrap_or_default())
}

/// Edit distance (Levenshtein).
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let kept = before + usize::from(x != y);
            before = row[j + 1];
            row[j + 1] = kept.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

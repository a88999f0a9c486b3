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

/// Edit distance (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
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

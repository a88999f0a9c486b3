//! How well a text fits a question: BM25, brought to 0 to 1 by what the question could reach at most.

use crate::services::numbers::rounded;

/// How fast repeats of a word stop to count, and how much the length of a text does.
const K1: f64 = 1.2;
const B: f64 = 0.75;

/// What a collection of texts says of the terms of a question.
pub(super) struct Statistics {
    /// By term: how rare it is.
    weights: Vec<f64>,
    average_length: f64,
}

impl Statistics {
    /// `containing` says for each term in how many of the texts it is; `length` is that of all texts in terms.
    pub(super) fn new(texts: usize, length: usize, containing: impl IntoIterator<Item = usize>) -> Statistics {
        let all = texts as f64;
        let weight = |containing: usize| {
            let containing = containing as f64;
            (1.0 + (all - containing + 0.5) / (containing + 0.5)).ln()
        };
        let average_length = length as f64 / all.max(1.0);
        Statistics { weights: containing.into_iter().map(weight).collect(), average_length }
    }

    /// 0 to 1 for a text that has each term so many times.
    pub(super) fn relevance(&self, counts: &[u32], length: usize) -> f64 {
        let relative = if self.average_length > 0.0 { length as f64 / self.average_length } else { 0.0 };
        let damping = K1 * (1.0 - B + B * relative);
        let part = |(weight, count): (&f64, &u32)| {
            let count = f64::from(*count);
            weight * count * (K1 + 1.0) / (count + damping)
        };
        let reached: f64 = self.weights.iter().zip(counts).map(part).sum();
        let possible: f64 = self.weights.iter().sum();
        if possible > 0.0 { (reached / possible).min(1.0) } else { 0.0 }
    }
}

/// Relevance as it is said and compared: four decimals.
pub(super) fn told(relevance: f64) -> f64 {
    rounded(relevance, 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relevance_is_that_of_the_documented_examples() {
        // Three passages of 17 terms; `love` and `riddle` are in the first one, of 6 terms, alone.
        let known = Statistics::new(3, 17, [1, 1]);
        assert_eq!(told(known.relevance(&[1, 1], 6)), 0.9765);
        let unknown = Statistics::new(3, 17, [0, 1, 1]);
        assert_eq!(told(unknown.relevance(&[0, 1, 1], 6)), 0.474);
        assert_eq!(known.relevance(&[0, 0], 6), 0.0);
        assert_eq!(known.relevance(&[99, 99], 1), 1.0);
        assert_eq!(Statistics::new(0, 0, [0]).relevance(&[0], 0), 0.0);
    }
}

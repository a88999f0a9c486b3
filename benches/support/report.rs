//! What is wanted, what was measured, and whether that is enough: one table at the end of a run.

use super::Ratio;

/// What a number should be, at the bad end of its interval.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Shown, not judged.
    None,
}

/// The rows of the table.
#[derive(Default)]
pub struct Report(Vec<Row>);

struct Row {
    what: String,
    unit: &'static str,
    goal: Goal,
    measured: Option<Ratio>,
}

impl Report {
    /// A ratio.
    pub fn ratio(&mut self, what: impl Into<String>, goal: Goal, measured: Ratio) {
        self.0.push(Row { what: what.into(), unit: "×", goal, measured: Some(measured) });
    }

    /// A quantity in a unit; one that was read once has no interval.
    pub fn quantity(&mut self, what: impl Into<String>, unit: &'static str, goal: Goal, measured: Ratio) {
        self.0.push(Row { what: what.into(), unit, goal, measured: Some(measured) });
    }

    /// Something that could not be measured here.
    pub fn missing(&mut self, what: impl Into<String>, goal: Goal) {
        self.0.push(Row { what: what.into(), unit: "×", goal, measured: None });
    }

    /// The table, in Markdown; nothing where there are no rows.
    pub fn print(&self) {
        if self.0.is_empty() {
            return;
        }
        let cells: Vec<[String; 5]> =
            std::iter::once(["", "goal", "median", "95 % interval", "met"].map(str::to_owned))
                .chain(self.0.iter().map(Row::cells))
                .collect();
        let widths: [usize; 5] =
            std::array::from_fn(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or_default());
        println!();
        for (index, row) in cells.iter().enumerate() {
            let padded = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            println!("| {} |", padded.collect::<Vec<_>>().join(" | "));
            if index == 0 {
                println!("|{}|", widths.map(|width| "-".repeat(width + 2)).join("|"));
            }
        }
    }
}

impl Row {
    fn cells(&self) -> [String; 5] {
        let unit = self.unit;
        let goal = match self.goal {
            Goal::AtLeast(least) => format!("≥ {least} {unit}"),
            Goal::AtMost(most) => format!("≤ {most} {unit}"),
            Goal::None => String::new(),
        };
        let Some(measured) = self.measured else {
            return [self.what.clone(), goal, "not measured".to_owned(), String::new(), String::new()];
        };
        let interval = if measured.low == measured.high {
            String::new()
        } else {
            format!("{:.2} – {:.2}", measured.low, measured.high)
        };
        let met = match self.goal {
            Goal::AtLeast(least) if measured.low >= least => "yes",
            Goal::AtMost(most) if measured.high <= most => "yes",
            Goal::None => "",
            _ => "no",
        };
        [self.what.clone(), goal, format!("{:.2} {unit}", measured.median), interval, met.to_owned()]
    }
}

//! Everything that is measured, in one program: `cargo bench`, or the parts named behind `--`. Ends with one table of the
//! goals and what was measured.

mod gateway;
mod route;
mod stream;
mod structs;
mod support;
#[path = "../tests/support/mod.rs"]
mod system;
mod transcode;
mod worker;

use support::Report;

/// A part by its name.
type Part = (&'static str, fn(&mut Report));

/// Those with programs around them come last, as they move this process to one core.
const PARTS: [Part; 6] = [
    ("transcode", transcode::run),
    ("structs", structs::run),
    ("route", route::run),
    ("gateway", gateway::run),
    ("stream", stream::run),
    ("worker", worker::run),
];

fn main() {
    // The worker's yardstick is this program, too.
    if let Some(url) = std::env::args().skip_while(|argument| argument != "--echo").nth(1) {
        return worker::echo(&url);
    }
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = named.iter().find(|name| PARTS.iter().all(|part| part.0 != **name)) {
        let names = PARTS.map(|part| part.0).join(", ");
        eprintln!("`{unknown}` is nothing that is measured: name some of {names}");
        std::process::exit(2);
    }
    let mut report = Report::default();
    for (name, run) in PARTS {
        if named.is_empty() || named.iter().any(|one| one == name) {
            run(&mut report);
        }
    }
    report.print();
}

//! A look-up in tables of 10, 1,000 and 10,000 routes: uniform over all routes, 20 % misses, 5 % wrong verbs, captures
//! read. Goal: ten thousand routes cost no more than 1.5 times ten. Every look-up's answer is compared with what the
//! request was made from.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use tidegate::route::{Lookup, PathTemplate, RouteId, Segments, Tree};
use tidegate::schema::SourceFile;
use tidegate::snapshot::Material;

use crate::support::{Goal, Report, is_measuring, nanos, times_faster};

const SIZES: [usize; 3] = [10, 1_000, 10_000];
/// What a look-up among many routes may cost, in look-ups among ten.
const GOAL: Goal = Goal::AtMost(1.5);
/// Requests of a case, the same for each size: as many as the largest table has routes.
const REQUESTS: usize = 10_000;
const VERBS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "PATCH"];

/// The shapes that public APIs have; `N` is what tells the routes of a shape apart.
const SHAPES: [(&str, &str, &str); 10] = [
    ("GET", "/v1/serviceN/items", "/v1/serviceN/items"),
    ("POST", "/v1/serviceN/items", "/v1/serviceN/items"),
    ("GET", "/v1/serviceN/items/{a}", "/v1/serviceN/items/item-4711"),
    ("DELETE", "/v1/serviceN/items/{a}", "/v1/serviceN/items/item-4711"),
    ("POST", "/v1/serviceN/items/{a}:start", "/v1/serviceN/items/item-4711:start"),
    ("GET", "/v1/projects/{a}/serviceN/{b}", "/v1/projects/p-17/serviceN/7f3a"),
    ("PUT", "/v1/projects/{a}/serviceN/{b}/state", "/v1/projects/p-17/serviceN/7f3a/state"),
    ("GET", "/v1/{a=projects/*/locations/*}/serviceN", "/v1/projects/p-17/locations/west-2/serviceN"),
    ("GET", "/v1/serviceN/files/{a=**}", "/v1/serviceN/files/2026/11/a.txt"),
    ("POST", "/v2/serviceN:run", "/v2/serviceN:run"),
];

struct Table {
    tree: Tree,
    /// Of each route, the segments that its two captures take.
    captures: Vec<[(u8, u8); 2]>,
    requests: Vec<Request>,
    paths: String,
    /// What each request leads to.
    expected: Vec<Expected>,
}

/// A request: where its path is among all paths. Small, so that the tree has the caches rather than the bench.
struct Request {
    path: u32,
    len: u16,
    /// Index of [`VERBS`].
    verb: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    Route(u32),
    WrongVerb,
    Missing,
}

impl Table {
    fn new(routes: usize) -> Table {
        let (mut tree, mut captures) = (Tree::default(), Vec::new());
        for index in 0..routes {
            let (verb, template, _) = SHAPES[index % SHAPES.len()];
            let text = template.replace('N', &(index / SHAPES.len()).to_string());
            let template = PathTemplate::parse(&text).expect("a template");
            tree.insert(verb, &template, RouteId(index as u32)).expect("no conflict");
            // A capture of `**` reaches to the end in these shapes; all other ones are where the template has them.
            let end = |to: usize| if to == template.segments.len() { u8::MAX } else { to as u8 };
            let mut taken = template.variables.iter().map(|variable| (variable.from as u8, end(variable.to)));
            captures.push(std::array::from_fn(|_| taken.next().unwrap_or((0, 0))));
        }
        let mut table = Table { tree, captures, requests: Vec::new(), paths: String::new(), expected: Vec::new() };
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        for _ in 0..REQUESTS {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (index, dice) = ((state >> 33) as usize % routes, (state >> 20) % 100);
            table.request(index, dice);
        }
        table
    }

    fn request(&mut self, index: usize, dice: u64) {
        let (verb, _, path) = SHAPES[index % SHAPES.len()];
        let number = (index / SHAPES.len()).to_string();
        let start = self.paths.len();
        self.paths.push_str(&path.replace('N', &number));
        let (verb, expected) = match dice {
            // Half of the misses go wrong at the end, half at the service's name.
            0..10 => {
                self.paths.push_str("/nothing/here");
                (verb, if path.contains("/files/") { Expected::Route(index as u32) } else { Expected::Missing })
            }
            10..20 => {
                self.paths.truncate(start);
                write!(self.paths, "/v1/unknown{number}/items/item-4711").expect("a path");
                (verb, Expected::Missing)
            }
            20..25 => ("PATCH", Expected::WrongVerb),
            _ => (verb, Expected::Route(index as u32)),
        };
        let verb = VERBS.iter().position(|known| *known == verb).expect("a known verb") as u8;
        self.requests.push(Request { path: start as u32, len: (self.paths.len() - start) as u16, verb });
        self.expected.push(expected);
    }

    fn path(&self, request: &Request) -> &str {
        &self.paths[request.path as usize..request.path as usize + usize::from(request.len)]
    }

    /// One look-up as the gateway makes it, captures read.
    fn find(&self, request: &Request) -> Expected {
        let path = self.path(request);
        let Some(segments) = Segments::split(path) else { return Expected::Missing };
        match self.tree.find(VERBS[usize::from(request.verb)], path, &segments) {
            Lookup::Found(id) => {
                for (from, to) in self.captures[id.0 as usize] {
                    black_box(&path[segments.range(usize::from(from), usize::from(to).min(segments.len()))]);
                }
                Expected::Route(id.0)
            }
            Lookup::WrongVerb(allow) => {
                black_box(allow);
                Expected::WrongVerb
            }
            Lookup::Missing => Expected::Missing,
        }
    }

    /// Looks all requests up.
    fn pass(&self) {
        for request in &self.requests {
            black_box(self.find(black_box(request)));
        }
    }
}

pub fn run(report: &mut Report) {
    println!("route");
    let tables = SIZES.map(Table::new);
    for table in &tables {
        for (request, expected) in table.requests.iter().zip(&table.expected) {
            assert_eq!(table.find(request), *expected, "{} {}", VERBS[usize::from(request.verb)], table.path(request));
        }
    }
    build();
    if !is_measuring() {
        return;
    }
    let [ten, rest @ ..] = &tables;
    println!("  {:>6} routes {:>6.0} ns a look-up", SIZES[0], nanos(|| ten.pass()) / REQUESTS as f64);
    for (table, size) in rest.iter().zip(&SIZES[1..]) {
        let each = nanos(|| table.pass()) / REQUESTS as f64;
        let (ratio, wall) = times_faster(|| ten.pass(), || table.pass());
        println!("  {size:>6} routes {each:>6.0} ns a look-up   {ratio} of ten routes (by the wall clock {wall:.2}x)");
        report.ratio(format!("look-up, {size} routes / 10 routes"), GOAL, ratio);
    }
}

/// A whole routes file of ten thousand rows: text, descriptors, every binding compiled.
fn build() {
    const PROTO: &str = "syntax = \"proto3\"; package b.v1; message Ask { string a = 1; string b = 2; }\n\
                         service Bench { rpc Get(Ask) returns (Ask); }";
    let count = if is_measuring() { SIZES[2] } else { SIZES[1] };
    let mut routes = "routes:\n".to_owned();
    for index in 0..count {
        let (verb, template, _) = SHAPES[index % SHAPES.len()];
        let template = template.replace('N', &(index / SHAPES.len()).to_string());
        writeln!(routes, "  - {{ route: '{verb} {template}', call: b.v1.Bench/Get }}").expect("a row");
    }
    let material = Material {
        routes_name: "routes.yaml".to_owned(),
        routes,
        descriptors: vec![SourceFile { name: "bench.proto".to_owned(), bytes: PROTO.as_bytes().to_vec() }],
        ..Material::default()
    };
    let start = Instant::now();
    let snapshot = material.build(None).expect("the table builds");
    let took = start.elapsed();
    assert_eq!(snapshot.routes.len(), count);
    println!("  {count:>6} routes {:>6.0} ms to build from text", took.as_secs_f64() * 1e3);
}

//! Reloads of a folder of tables: whatever happens to the files, the last good tables stay in force until better ones
//! are whole.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use support::eventually;
use tempfile::TempDir;
use tidegate::snapshot::{Files, Live, Outcome, Rules, Source, watch};

const PROTO: &str = r#"syntax = "proto3";
package t.v1;
message Ask { string id = 1; }
message Answer { string id = 1; }
service Things { rpc Get(Ask) returns (Answer); }
"#;

/// A table with one route at a path.
fn table(path: &str) -> String {
    format!(
        "routes:\n  - route: GET {path}\n    call: t.v1.Things/Get\n    \
         policies: {{ rate: {{ requests: 5, per: 1s }}, calls: 7, streams: 9 }}\n"
    )
}

/// A watched folder.
struct Watched {
    folder: TempDir,
    live: Arc<Live>,
    outcome: tokio::sync::watch::Receiver<Outcome>,
}

impl Watched {
    fn start(routes: &str) -> Watched {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("descriptors")).unwrap();
        std::fs::write(folder.path().join("descriptors/test.proto"), PROTO).unwrap();
        std::fs::write(folder.path().join("routes.yaml"), routes).unwrap();
        Watched::on(folder)
    }

    fn on(folder: TempDir) -> Watched {
        let files = Files { routes: folder.path().join("routes.yaml"), descriptors: folder.path().join("descriptors") };
        let material = files.read().unwrap();
        let live = Live::new(material.build(None).unwrap());
        let outcome = watch(live.clone(), Arc::new(files), material, Rules::default());
        Watched { folder, live, outcome }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn templates(&self) -> Vec<String> {
        self.live.pin().routes.iter().map(|route| route.template.to_string()).collect()
    }

    async fn serves(&self, path: &str) {
        eventually(&format!("{path} is served"), async || self.templates() == [path]).await;
    }

    /// Waits for a refused reload; gives its report.
    async fn refused(&self, count: u64) -> String {
        eventually("the reload is refused", async || self.outcome.borrow().refused >= count).await;
        assert!(self.outcome.borrow().is_stale);
        self.outcome.borrow().report.clone()
    }
}

#[tokio::test]
async fn an_edit_is_served_with_the_state_of_limits_that_did_not_change() {
    let watched = Watched::start(&table("/a"));
    let before = watched.live.pin();
    watched.write("routes.yaml", &format!("{}  - route: GET /b\n    call: t.v1.Things/Get\n", table("/a")));
    eventually("both routes are served", async || watched.templates() == ["/a", "/b"]).await;
    let after = watched.live.pin();
    assert_eq!((before.generation, after.generation), (1, 2));
    let (before, after) = (&before.routes[0].policies, &after.routes[0].policies);
    assert!(Arc::ptr_eq(&before.bucket.as_ref().unwrap().1, &after.bucket.as_ref().unwrap().1));
    assert!(Arc::ptr_eq(before.call_slots.as_ref().unwrap(), after.call_slots.as_ref().unwrap()));
    assert!(Arc::ptr_eq(before.stream_slots.as_ref().unwrap(), after.stream_slots.as_ref().unwrap()));
}

#[tokio::test]
async fn a_changed_descriptor_is_a_reload_too() {
    let watched = Watched::start("annotations:\n  - { services: [ '*' ], convention: true }\n");
    watched.serves("/t.v1.Things/Get").await;
    watched.write("descriptors/test.proto", &PROTO.replace("rpc Get(", "rpc Find(Ask) returns (Answer); rpc Get("));
    eventually("both are served", async || watched.templates() == ["/t.v1.Things/Find", "/t.v1.Things/Get"]).await;
}

#[tokio::test]
async fn a_mistake_keeps_the_last_good_table_and_its_repair_is_served() {
    let watched = Watched::start(&table("/a"));
    watched.write("routes.yaml", &table("/b").replace("Things/Get", "Things/Got"));
    let report = watched.refused(1).await;
    assert!(report.contains("did you mean `t.v1.Things/Get`?"), "{report}");
    assert_eq!((watched.templates(), watched.live.pin().generation), (vec!["/a".to_owned()], 1));
    watched.write("routes.yaml", &table("/b"));
    watched.serves("/b").await;
    eventually("the report is gone", async || !watched.outcome.borrow().is_stale).await;
    assert_eq!(watched.outcome.borrow().report, "");
}

#[tokio::test]
async fn a_removed_file_keeps_the_last_good_table_until_it_is_back() {
    let watched = Watched::start(&table("/a"));
    std::fs::remove_file(watched.path("routes.yaml")).unwrap();
    let report = watched.refused(1).await;
    assert!(report.contains("cannot be read"), "{report}");
    assert_eq!(watched.templates(), ["/a"]);
    watched.write("routes.yaml", &table("/b"));
    watched.serves("/b").await;
}

#[tokio::test]
async fn a_half_written_file_keeps_the_last_good_table() {
    let whole = table("/b");
    for half in ["", "\n", &whole[..whole.len() / 2]] {
        let watched = Watched::start(&table("/a"));
        watched.write("routes.yaml", half);
        watched.refused(1).await;
        assert_eq!(watched.templates(), ["/a"], "{half:?}");
        watched.write("routes.yaml", &whole);
        watched.serves("/b").await;
    }
}

#[tokio::test]
async fn an_emptied_descriptor_does_not_take_its_routes_away() {
    let watched = Watched::start("annotations:\n  - { services: [ '*' ], convention: true }\n");
    watched.write("descriptors/test.proto", "");
    let report = watched.refused(1).await;
    assert!(report.contains("test.proto") && report.contains("this file is empty"), "{report}");
    assert_eq!(watched.templates(), ["/t.v1.Things/Get"]);
}

/// A ConfigMap's folder: files are links through `..data`, which one rename swaps.
#[tokio::test]
async fn a_config_map_is_followed_through_its_swaps() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("descriptors")).unwrap();
    std::fs::write(folder.path().join("descriptors/test.proto"), PROTO).unwrap();
    swap_config_map(folder.path(), 1, &table("/a"));
    std::os::unix::fs::symlink("..data/routes.yaml", folder.path().join("routes.yaml")).unwrap();
    let watched = Watched::on(folder);
    for (generation, path) in [(2, "/b"), (3, "/c")] {
        swap_config_map(watched.folder.path(), generation, &table(path));
        watched.serves(path).await;
    }
}

fn swap_config_map(folder: &Path, generation: u32, routes: &str) {
    let name = format!("..{generation}");
    std::fs::create_dir(folder.join(&name)).unwrap();
    std::fs::write(folder.join(&name).join("routes.yaml"), routes).unwrap();
    std::os::unix::fs::symlink(&name, folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
}

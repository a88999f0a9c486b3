//! Settings of players. What the service answers is in `tests/examples.rs`.

use crate::support;

use serde_json::json;
use support::replicas::Replicas;

#[tokio::test]
async fn a_key_of_an_action_has_its_default_where_it_is_asked_for() {
    let game = Replicas::embedded(&[]).await;
    let wanted = json!({"player_id": "p1", "setting_keys": ["controls.key.jump", "controls.key.*", "mod.fog"]});
    let got = game.ask("svc.settings.v1.get", wanted).await;
    let default = json!([{"key": "controls.key.jump", "value_type": "string", "is_default": true}]);
    assert_eq!(got["settings"], default, "{got}");
}

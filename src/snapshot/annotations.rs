//! Routes that the descriptors declare themselves, with `google.api.http` options or by convention.

use super::build::{Builder, NewRoute, body};
use super::manifest::PolicyRow;
use super::methods::place_of;
use super::problem::{Place, Problem};
use crate::route::HttpRule;
use crate::schema::{self, HttpRuleRow};
use crate::written::did_you_mean;

impl<'a> Builder<'a> {
    /// Routes of `google.api.http` options.
    pub(super) fn annotations(&mut self) {
        let manifest = self.manifest;
        for row in &manifest.annotations {
            for wanted in &row.value.services {
                let schema = self.schema;
                let found: Vec<&schema::ServiceRow> = schema
                    .services
                    .iter()
                    .filter(|service| match wanted.value.as_str() {
                        "*" => !manifest.brought.contains(&service.name),
                        name => service.name == name,
                    })
                    .collect();
                if found.is_empty() && wanted.value != "*" {
                    let names: Vec<&str> = schema.services.iter().map(|service| service.name.as_str()).collect();
                    let text = format!("the descriptors have no service `{}`", wanted.value);
                    let place = Place::new(self.reader.file, wanted.place.0, wanted.place.1);
                    self.reader.problems.push(Problem::new(place, text).hint(did_you_mean(&wanted.value, &names)));
                }
                for service in found {
                    self.service(service, &row.value.policies, row.value.convention);
                }
            }
        }
    }

    /// Routes of services whose workers announce themselves; those that are in the table already are in force.
    pub(super) fn discovered(&mut self) {
        let (manifest, schema) = (self.manifest, self.schema);
        self.is_discovering = true;
        for name in manifest.discovered.iter().filter(|name| schema.services.iter().all(|row| row.name != **name)) {
            let text = format!("no file declares `{name}`: one of the same name is in force instead of the worker's");
            let problem = Problem::new(Place::new(self.reader.file, 1, 1), text);
            self.reader.problems.push(problem.hint("give the worker's file another name"));
        }
        for service in schema.services.iter().filter(|service| manifest.discovered.contains(&service.name)) {
            self.service(service, &manifest.defaults, false);
        }
        self.is_discovering = false;
    }

    fn service(&mut self, service: &'a schema::ServiceRow, policies: &'a PolicyRow, has_convention: bool) {
        for row in &service.methods {
            let own = self.manifest.methods.get(&row.name).map(|row| &row.value);
            let levels: Vec<&PolicyRow> = own.into_iter().chain([policies, &self.manifest.defaults]).collect();
            let Some(method) = self.method(row, &service.queue_group, &levels) else { continue };
            let convention = [HttpRuleRow {
                verb: "POST".to_owned(),
                path: format!("/{}", row.name),
                body: "*".to_owned(),
                ..HttpRuleRow::default()
            }];
            let rules: &[HttpRuleRow] = if row.http.is_empty() && has_convention { &convention } else { &row.http };
            for rule in rules {
                self.add(NewRoute {
                    rule: HttpRule {
                        verb: rule.verb.clone(),
                        template: rule.path.clone(),
                        body: body(&rule.body),
                        response_body: Some(rule.response_body.clone()).filter(|field| !field.is_empty()),
                        presets: rule.presets.clone(),
                        headers: rule.headers_in.clone(),
                    },
                    headers_out: &rule.headers_out,
                    method: method.clone(),
                    is_stream: row.is_server_streaming,
                    levels: levels.clone(),
                    place: place_of(&row.place),
                });
            }
        }
    }
}

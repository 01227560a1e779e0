//! The live table against one made from scratch, piece by piece.

use super::certificate::Certificate;
use super::compile::{Compiled, compile};
use super::rule::CompiledRoute;
use super::snapshot::Snapshot;
use crate::model::{Kind, Resource, ResourceKey, State};

impl Snapshot {
    /// Compares what stands here for the next `count` resources of `state`, which this was made of, with what they compile to now:
    /// documents, and whether every match is found in the index. After the last one the totals are compared too.
    ///
    /// Answers where to go on, `None` after the last. Errors: the first difference, for people.
    pub fn check(&self, state: &State, after: Option<&ResourceKey>, count: usize) -> Result<Option<ResourceKey>, String> {
        let mut resources = state.resources_from(after);
        let mut last = None;
        for resource in resources.by_ref().take(count) {
            self.check_resource(resource).map_err(|what| format!("{}: {what}", resource.key))?;
            last = Some(&resource.key);
        }
        if resources.next().is_some() {
            return Ok(last.cloned());
        }
        match self.resource_count() {
            found if found == state.len() => Ok(None),
            found => Err(format!("the table stands for {found} resources, and there are {}", state.len())),
        }
    }

    fn check_resource(&self, resource: &Resource) -> Result<(), &'static str> {
        if resource.key.kind == Kind::Certificate
            && let Some(present) = self.certificate(&resource.key.name)
        {
            return self.check_certificate(resource, present);
        }
        let (compiled, reason) = compile(resource, &self.keyring);
        if self.reason_not_compiled(&resource.key) != reason.as_deref() {
            return Err("what does not compile is told otherwise");
        }
        match compiled {
            Compiled::Nothing => Ok(()),
            Compiled::Certificate(_) => Err("the certificate is missing"),
            Compiled::Service(service) => match self.service(&resource.key.name) {
                Some(present) if *present == service => Ok(()),
                Some(_) => Err("the service is another one"),
                None => Err("the service is missing"),
            },
            Compiled::Route(route) => match self.routes.get(&resource.key) {
                Some(present) if *present == route => self.check_index(&route),
                Some(_) => Err("the route is another one"),
                None => Err("the route is missing"),
            },
        }
    }

    /// By its document: to open a key and read it again takes a millisecond, and a pass of the check is to cost nothing.
    fn check_certificate(&self, resource: &Resource, present: &Certificate) -> Result<(), &'static str> {
        let made_of = (present.created_revision, present.revision, &present.spec);
        if made_of != (resource.created_revision, resource.revision, &resource.spec) {
            return Err("the certificate is another one");
        }
        if self.reason_not_compiled(&resource.key).is_some() {
            return Err("the certificate is served, and is told not to compile");
        }
        if !self.certificates.holds(present) {
            return Err("a host of the certificate does not lead to it");
        }
        Ok(())
    }

    fn check_index(&self, route: &CompiledRoute) -> Result<(), &'static str> {
        if !self.contest.is_settled(route) {
            return Err("a route of the other kind stands in its way, or none does, and the table holds otherwise");
        }
        let mut found = route.candidates().map(|candidate| {
            let present = self.index.find(&candidate);
            present.is_some_and(|present| present.rule == candidate.rule)
        });
        match self.contest.serves(route) {
            true if found.all(|found| found) => Ok(()),
            true => Err("a match of the route is not in the index"),
            false if found.any(|found| found) => Err("the route waits, and a match of it is in the index"),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;
    use crate::model::Operation;
    use crate::table::tests::documents::{apply, put};
    use serde_json::{Value, json};

    fn key(name: &str) -> ResourceKey {
        ResourceKey::new(Kind::Route, Name::new(name).unwrap())
    }

    fn route(path: &str) -> Value {
        json!({"hostnames": ["a.com"], "rules": [{"matches": [{"path": {"value": path}}], "backendRefs": [{"name": "s"}]}]})
    }

    fn state() -> State {
        let mut state = State::default();
        let template = json!({"rules": [{"matches": [{"path": {"type": "PathTemplate", "value": "/x/{id}"}}]}]});
        let expression = json!({"rules": [{"matches": [{"path": {"type": "RegularExpression", "value": "/x/.*"}}]}]});
        let grpc = json!({"hostnames": ["a.com"], "rules": [{"backendRefs": [{"name": "s"}]}]});
        let same = |index: usize| route("/same").to_string().replace("\"a.com\"", &format!("\"a.com\",\"b{index}.com\""));
        apply(&mut state, vec![put(Kind::Route, "template", &template), put(Kind::Route, "expression", &expression)]);
        apply(&mut state, vec![put(Kind::Service, "s", &json!({"endpoints": []}))]);
        apply(&mut state, vec![put(Kind::Route, "bad", &json!({"rules": 1}))]);
        for index in 0..40 {
            let document: Value = serde_json::from_str(&same(index)).unwrap();
            apply(&mut state, vec![put(Kind::Route, &format!("r{index}"), &document)]);
        }
        // It waits: routes of its hostname are older.
        apply(&mut state, vec![put(Kind::GrpcRoute, "grpc", &grpc)]);
        state
    }

    fn check_all(snapshot: &Snapshot, state: &State, count: usize) -> Result<usize, String> {
        let (mut after, mut pieces) = (None, 1);
        while let Some(next) = snapshot.check(state, after.as_ref(), count)? {
            (after, pieces) = (Some(next), pieces + 1);
        }
        Ok(pieces)
    }

    #[test]
    fn a_table_that_is_right_passes_in_pieces_of_any_size() {
        let state = state();
        let snapshot = Snapshot::build(&state);
        assert_eq!(check_all(&snapshot, &state, 1000), Ok(1));
        assert_eq!(check_all(&snapshot, &state, 10), Ok(state.len().div_ceil(10)));
        assert_eq!(check_all(&Snapshot::empty(), &State::default(), 10), Ok(1));
    }

    #[test]
    fn whatever_differs_is_found() {
        let state = state();
        let damaged = |damage: &dyn Fn(&mut Snapshot)| {
            let mut snapshot = Snapshot::build(&state);
            damage(&mut snapshot);
            check_all(&snapshot, &state, 7).expect_err("the damage was not found")
        };
        // Taken out of the index behind the table's back, from a bucket of many, a template's and an expression's.
        for name in ["r7", "template", "expression"] {
            let error = damaged(&|snapshot| {
                let route = snapshot.routes.get(&key(name)).cloned().unwrap();
                route.candidates().take(1).for_each(|candidate| snapshot.index.remove(&candidate));
            });
            assert!(error.contains(name) && error.contains("not in the index"), "{error}");
        }
        assert!(damaged(&|snapshot| snapshot.remove(&key("r3"))).contains("is missing"));
        let service = ResourceKey::new(Kind::Service, Name::new("s").unwrap());
        assert!(damaged(&|snapshot| snapshot.remove(&service)).contains("service is missing"));
        let mut later = state.clone();
        apply(&mut later, vec![put(Kind::Route, "r3", &route("/other"))]);
        assert!(check_all(&Snapshot::build(&later), &state, 7).unwrap_err().contains("another one"));
        let mut fewer = state.clone();
        apply(&mut fewer, vec![Operation::Delete { key: key("r3") }]);
        assert!(
            check_all(&Snapshot::build(&state), &fewer, 7).unwrap_err().contains("stands for 45 resources, and there are 44")
        );
    }
}

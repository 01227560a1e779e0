//! Certificates as clients see them: sealed where they go in, a digest wherever they come out.

use rcgen::{CertificateParams, KeyPair};

use super::api::Answer;
use super::*;
use crate::model::{Command, CommandBody, StateRecord, Timestamp};

/// Chain and key in PEM.
pub(super) struct Made {
    chain: String,
    key: String,
}

impl Made {
    pub(super) fn new(hosts: &[&str]) -> Made {
        Made::with(hosts, |_| ())
    }

    fn with(hosts: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Made {
        let key = KeyPair::generate().expect("a key");
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut parameters = CertificateParams::new(hosts).expect("hosts");
        change(&mut parameters);
        Made { chain: parameters.self_signed(&key).expect("a certificate").pem(), key: key.serialize_pem() }
    }

    pub(super) fn spec(&self) -> Value {
        json!({"certificate": self.chain, "privateKey": self.key})
    }

    /// The first line of the key's base64, which stands nowhere else.
    fn body(&self) -> &str {
        self.key.lines().nth(1).expect("a line")
    }
}

pub(super) fn raise(api: &Api, level: u32) {
    let body = CommandBody::RaiseFeatureLevel(level);
    let command = Command { proposed_at: Timestamp(1), actor: "test".to_owned(), body };
    api.cluster.state.lock().expect("the state").apply(&command);
}

fn item(name: &str, spec: &Value) -> Value {
    json!({"kind": "Certificate", "name": name, "spec": spec})
}

async fn transact(api: &Api, query: &str, name: &str, spec: &Value) -> Answer {
    let body = json!({"operations": [put_operation("Certificate", name, spec)]});
    api.send(&format!("POST /v1/transactions{query}"), &[], body.to_string()).await
}

/// Everything that a snapshot or the history of this State holds.
fn everything(api: &Api) -> String {
    let state = api.cluster.state();
    let records = state.records().map(|record| match record {
        StateRecord::Resource(resource) => String::from_utf8_lossy(&resource.spec).into_owned(),
        other => format!("{other:?}"),
    });
    records.collect()
}

#[tokio::test]
async fn a_key_goes_in_and_its_digest_comes_out() {
    let api = Api::with_keys(&[1]);
    raise(&api, 2);
    let made = Made::new(&["a.com"]);
    let put = api.put("/v1/certificates/a", &made.spec()).await;
    assert_eq!((put.status, &put.body["warnings"]), (201, &json!([])), "{put:?}");
    let stored = everything(&api);
    assert!(stored.contains("\"sealed\"") && !stored.contains(made.body()), "{stored}");
    let live = api.live.load();
    assert!(live.certificate_for(Some("a.com")).is_some(), "{:?}", live.not_compiled().collect::<Vec<_>>());

    let one = api.get("/v1/certificates/a").await;
    let shown = one.body["spec"].clone();
    assert_eq!(shown["certificate"], json!(made.chain));
    let secret = shown["privateKey"].as_object().expect("an object");
    assert!(secret.len() == 1 && secret["secretDigest"].as_str().is_some_and(|digest| digest.starts_with("hmac-sha256:")));
    let list = api.get("/v1/certificates").await;
    assert_eq!(list.body["items"][0]["spec"], shown);
    let config = api.get("/v1/config").await;
    assert_eq!(config.body["items"][0]["spec"], shown);
    let yaml = api.send("GET /v1/config", &[("accept", "application/yaml")], "").await;
    let changed = json!({"certificate": made.chain, "privateKey": made.key, "default": true});
    let rehearsed = transact(&api, "?dryRun=true", "a", &changed).await;
    assert_eq!(rehearsed.body["changes"][0]["before"], shown, "{rehearsed:?}");
    assert_eq!(rehearsed.body["changes"][0]["after"]["privateKey"], shown["privateKey"]);
    let new = api.send("PUT /v1/certificates/new?dryRun=true", &[], made.spec().to_string()).await;
    assert!(new.body["changes"][0]["after"]["privateKey"]["secretDigest"].is_string(), "{new:?}");
    let table = api.get("/v1/table").await;
    assert_eq!((&table.body["certificates"], &table.body["notCompiled"]), (&json!(1), &json!([])));
    let both = json!({"certificate": format!("{}{}", made.chain, made.key), "privateKey": made.key});
    let both = api.put("/v1/certificates/both", &both).await;
    let errors = both.body["errors"].to_string();
    assert!(both.status == 422 && errors.contains("/certificate") && errors.contains("`PRIVATE KEY`"), "{both:?}");
    assert!(!everything(&api).contains(made.body()));
    for answer in [both, put, one, list, config, rehearsed, new, table, yaml] {
        assert!(!answer.text.contains(made.body()) && !answer.text.contains("sealed"), "{}", answer.text);
    }
}

#[tokio::test]
async fn what_says_nothing_new_makes_no_revision() {
    let api = Api::with_keys(&[1]);
    let made = Made::new(&["a.com"]);
    assert_eq!(api.put("/v1/certificates/a", &made.spec()).await.status, 201);
    let shown = api.get("/v1/certificates/a").await.body["spec"].clone();
    let windows = json!({"certificate": made.chain, "privateKey": format!("\r\n{}\n", made.key.replace('\n', "\r\n"))});
    for spec in [made.spec(), windows, shown.clone()] {
        let single = api.put("/v1/certificates/a", &spec).await;
        let several = transact(&api, "", "a", &spec).await;
        let all = api.put("/v1/config?prune=true", &json!({"items": [item("a", &spec)]})).await;
        for answer in [single, several, all] {
            assert_eq!((answer.status, &answer.body["changed"]), (200, &json!(false)), "{answer:?}");
        }
    }
    let yaml = [("accept", "application/yaml"), ("content-type", "application/yaml")];
    let whole = api.send("GET /v1/config", &yaml, "").await;
    let again = api.send("PUT /v1/config?prune=true", &yaml, whole.text).await;
    assert_eq!((again.status, &again.body["changed"], api.revision()), (200, &json!(false), 1), "{again:?}");

    // With the digest, everything else may change: the key stays.
    let sealed = |api: &Api| everything(api).split("\"sealed\":\"").nth(1).map(|rest| rest[..40].to_owned());
    let before = sealed(&api);
    let mut default = shown.clone();
    default["default"] = json!(true);
    assert_eq!(api.put("/v1/certificates/a", &default).await.body["changed"], json!(true));
    assert_eq!(sealed(&api), before);
    assert!(api.live.load().certificate_for(None).is_some());
    // A renewed chain is checked against the key that is kept.
    let foreign = json!({"certificate": Made::new(&["a.com"]).chain, "privateKey": shown["privateKey"]});
    let refused = api.put("/v1/certificates/a", &foreign).await;
    assert!(refused.status == 422 && refused.text.contains("/privateKey: it is not the key of the certificate"), "{refused:?}");
    let changed = api.put("/v1/certificates/a", &Made::new(&["a.com"]).spec()).await;
    assert_eq!(changed.body["changed"], json!(true));
    let stale = api.put("/v1/certificates/a", &default).await;
    assert!(
        stale.status == 422 && stale.text.contains("/privateKey/secretDigest: it is not the digest of what is stored"),
        "{stale:?}"
    );
}

#[tokio::test]
async fn what_cannot_serve_is_refused_by_field() {
    let api = Api::with_keys(&[1]);
    let (a, b) = (Made::new(&["a.com"]), Made::new(&["b.com"]));
    assert_eq!(api.put("/v1/certificates/a", &a.spec()).await.status, 201);
    let digest = api.get("/v1/certificates/a").await.body["spec"]["privateKey"].clone();
    let sealed = json!({"sealed": "AAAA", "keyId": "k", "secretDigest": "d"});
    let of = |certificate: &str, key: Value| json!({"certificate": certificate, "privateKey": key});
    let both = format!("{}{}", b.chain, a.chain);
    for (name, spec, part) in [
        ("c", json!({}), "/certificate: is required"),
        ("c", json!({"certificate": a.chain}), "/privateKey: is required"),
        ("c", json!({"certificate": a.chain, "privateKey": a.key, "chain": 1}), "/chain: unknown field"),
        ("c", json!({"certificate": a.chain, "privateKey": a.key, "default": 1}), "/default: expected a boolean"),
        ("c", of("", json!(a.key)), "/certificate: must not be empty"),
        ("c", of(&"x".repeat(70_000), json!(a.key)), "/certificate: at most 65536 bytes"),
        ("c", of(&a.key, json!(a.key)), "/certificate: it holds a section `PRIVATE KEY`: only certificates stand here"),
        ("c", of("text", json!(a.key)), "/certificate: it holds no certificate"),
        ("c", of(&both, json!(a.key)), "/certificate: the key is that of certificate 2 of the chain: the leaf must come first"),
        ("c", of(&a.chain, json!(b.key)), "/privateKey: it is not the key of the certificate"),
        ("c", of(&a.chain, json!(a.chain)), "/privateKey: it holds no private key"),
        ("c", of(&a.chain, json!("x".repeat(20_000))), "/privateKey: at most 16384 bytes"),
        ("c", of(&a.chain, json!(7)), "/privateKey: expected an object"),
        ("c", of(&a.chain, json!({"secret": 1})), "/privateKey/secret: unknown field"),
        ("c", of(&a.chain, sealed), "/privateKey: a sealed key is not taken"),
        ("c", of(&a.chain, digest), "/privateKey/secretDigest: Certificate \\\"c\\\" does not exist"),
        ("a", of(&a.chain, json!({"secretDigest": "x"})), "/privateKey/secretDigest: it is not the digest of what is stored"),
    ] {
        let single = api.put(&format!("/v1/certificates/{name}"), &spec).await;
        assert!(single.status == 422 && single.text.contains(part), "{part}: {}", single.text);
        let several = transact(&api, "", name, &spec).await;
        assert!(several.status == 422 && several.text.contains("/operations/0/spec/"), "{part}: {}", several.text);
        let all = api.put("/v1/config", &json!({"items": [item(name, &spec)]})).await;
        assert!(all.status == 422 && all.text.contains("/items/0/spec/"), "{part}: {}", all.text);
        for answer in [single, several, all] {
            assert!(![&a, &b].iter().any(|made| answer.text.contains(made.body())), "{}", answer.text);
        }
    }
    assert_eq!(api.revision(), 1);
}

#[tokio::test]
async fn a_node_without_the_key_seals_nothing_and_says_what_to_configure() {
    let (with, without) = (Api::with_keys(&[1]), Api::open());
    let made = Made::new(&["a.com"]);
    let refused = without.put("/v1/certificates/a", &made.spec()).await;
    assert!(refused.status == 422 && refused.text.contains("secrets.key_file"), "{refused:?}");
    assert_eq!(with.put("/v1/certificates/a", &made.spec()).await.status, 201);
    // The same State, on nodes that have no key or another one.
    let other = Api::with_keys(&[2]);
    for (api, words) in [(&without, "which this node does not have"), (&other, "which this node does not have")] {
        let state = with.cluster.state();
        api.live.store(std::sync::Arc::new(api.live.load().rebuilt(&state)));
        *api.cluster.state.lock().expect("the state") = state;
        let table = api.get("/v1/table").await;
        let reason = table.body["notCompiled"][0]["reason"].as_str().unwrap_or_default().to_owned();
        assert!(reason.contains(words) && reason.contains("secrets.previous_key_files"), "{table:?}");
        assert_eq!(table.body["notCompiledCount"], json!(1));
        // What stays as it is needs no key.
        let whole = api.get("/v1/config").await;
        assert_eq!(api.put("/v1/config?prune=true", &whole.body).await.body["changed"], json!(false));
        let mut renewed = whole.body["items"][0]["spec"].clone();
        renewed["certificate"] = json!(Made::new(&["a.com"]).chain);
        let refused = api.put("/v1/certificates/a", &renewed).await;
        assert!(refused.status == 422 && refused.text.contains("the new certificate cannot be checked"), "{refused:?}");
    }
    // Sent in plain text to a node that seals with another key, it is sealed anew.
    assert_eq!(other.put("/v1/certificates/a", &made.spec()).await.body["changed"], json!(true));
    assert_eq!(other.get("/v1/table").await.body["notCompiled"], json!([]));
}

#[tokio::test]
async fn what_is_hardly_meant_is_a_warning() {
    let api = Api::with_keys(&[1]);
    let warnings = |answer: &Answer| answer.body["warnings"].as_array().expect("warnings").clone();
    let old = Made::with(&["a.com", "*.a.com"], |parameters| parameters.not_after = rcgen::date_time_ymd(2001, 2, 3));
    let told = warnings(&api.put("/v1/certificates/old", &old.spec()).await);
    assert_eq!(told, [json!("Certificate \"old\": /certificate: it expired at 2001-02-03T00:00:00.000Z: clients refuse it")]);
    let early = Made::with(&["e.com"], |parameters| parameters.not_before = rcgen::date_time_ymd(3001, 2, 3));
    let told = warnings(&api.put("/v1/certificates/early", &early.spec()).await);
    assert!(told.len() == 1 && told[0].to_string().contains("not valid before 3001-02-03"), "{told:?}");
    let twin = Made::new(&["b.com", "*.a.com"]);
    let told = warnings(&api.put("/v1/certificates/twin", &twin.spec()).await);
    let shared = "Certificate \"twin\": certificate \"old\" has the host \"*.a.com\" too: the oldest serves it";
    assert_eq!(told, [json!(shared)]);
    // Those that it replaces, or that go with it, are not in its way.
    assert_eq!(warnings(&api.put("/v1/certificates/old", &Made::new(&["a.com"]).spec()).await), [] as [Value; 0]);
    let operations =
        json!([put_operation("Certificate", "heir", &twin.spec()), {"op": "delete", "kind": "Certificate", "name": "twin"}]);
    let heir = api.send("POST /v1/transactions", &[], json!({"operations": operations}).to_string()).await;
    assert_eq!((heir.status, warnings(&heir)), (200, vec![]), "{heir:?}");
    let mut first = Made::new(&["f.com"]).spec();
    first["default"] = json!(true);
    assert_eq!(warnings(&api.put("/v1/certificates/first", &first).await), [] as [Value; 0]);
    let told = warnings(&api.put("/v1/certificates/second", &first).await);
    assert!(told[0].to_string().contains("has the host") && told[1].to_string().contains("is marked as default too"), "{told:?}");
    let items = json!({"items": [item("x", &first), item("y", &first)]});
    let told = warnings(&api.put("/v1/config?prune=true", &items).await);
    assert_eq!(told.len(), 4, "{told:?}");
}

#[tokio::test]
async fn a_retry_with_a_key_is_known_again_and_gives_nothing_away() {
    let api = Api::with_keys(&[1]);
    let made = Made::new(&["a.com"]);
    let key = [("idempotency-key", "k"), ("content-type", "application/json")];
    for (call, spec) in [
        ("PUT /v1/certificates/a", made.spec()),
        ("POST /v1/transactions", json!({"operations": [put_operation("Certificate", "b", &made.spec())]})),
        ("PUT /v1/config", json!({"items": [item("c", &made.spec())]})),
    ] {
        let key = [(key[0].0, call), key[1]];
        let first = api.send(call, &key, spec.to_string()).await;
        let again = api.send(call, &key, spec.to_string()).await;
        assert_eq!(
            (first.status < 300, &first.body["revision"], again.status),
            (true, &again.body["revision"], first.status),
            "{first:?}"
        );
        let other = api.send(call, &key, format!("{spec} ")).await;
        assert!(other.status == 422 && other.text.contains("idempotency-key-reused"), "{call}: {other:?}");
    }
    assert_eq!(api.revision(), 3);
    let remembered = |record: &StateRecord| matches!(record, StateRecord::Remembered(_));
    let sums = |api: &Api| -> Vec<String> {
        let state = api.cluster.state();
        state.records().filter(remembered).map(|record| format!("{record:?}")).collect()
    };
    let other = Api::with_keys(&[2]);
    other.send("PUT /v1/certificates/a", &[("idempotency-key", "PUT /v1/certificates/a")], made.spec().to_string()).await;
    let sum_of = |text: &str| text.split("request_sha256").nth(1).map(|rest| rest.chars().take(60).collect::<String>());
    let (one, two) = (sums(&api), sums(&other));
    assert_eq!((one.len(), two.len()), (3, 1));
    assert!(sum_of(&two[0]).is_some() && one.iter().all(|text| sum_of(text) != sum_of(&two[0])), "{one:?} {two:?}");
}

#[tokio::test]
async fn a_cluster_of_an_earlier_level_takes_none() {
    let api = Api::with_keys(&[1]);
    raise(&api, 1);
    let refused = transact(&api, "?dryRun=true", "a", &Made::new(&["a.com"]).spec()).await;
    assert!(refused.status == 409 && refused.text.contains("raise-feature-level 2"), "{refused:?}");
    raise(&api, 2);
    let rehearsed = transact(&api, "?dryRun=true", "a", &Made::new(&["a.com"]).spec()).await;
    assert_eq!(rehearsed.status, 200, "{rehearsed:?}");
}

//! Scripts: what is written, and what it gives or how it is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::source::{Overrides, load};
use super::*;

const GOOD: &str = r#"
node_id = 1
[cluster]
peer_address = "127.0.0.1:7081"
initial_members = { 1 = "127.0.0.1:7081", 2 = "node-2.example:7081" }
[admin]
address = "127.0.0.1:9081"
[[listener]]
address = "127.0.0.1:8081"
"#;

fn read(text: &str, variables: &[(&str, &str)], overrides: Overrides) -> Result<NodeConfig, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    fs::write(&path, text).unwrap();
    let environment: BTreeMap<_, _> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load(Some(&path), environment, overrides)
}

#[test]
fn defaults_stand_in_for_what_is_not_said() {
    let config = read(GOOD, &[], Overrides::default()).unwrap();
    assert_eq!(config.cluster.heartbeat, Duration::from_millis(50));
    assert_eq!(config.cluster.initial_members[&2], "node-2.example:7081");
    assert_eq!(config.listeners[0].name, "default");
    let listener = &config.listeners[0];
    assert_eq!((listener.header_bytes_max, listener.escaped_slashes), (65_536, EscapedSlashes::Refuse));
    let timeouts = [listener.header_read_timeout, listener.idle_timeout, listener.stream_idle_timeout];
    assert_eq!(timeouts.map(|timeout| timeout.as_secs()), [10, 60, 300]);
    assert_eq!(config.cold_start_wait, Duration::from_secs(1));
    assert_eq!((config.insecure, config.on_storage_failure), (false, OnStorageFailure::Serve));
    assert!(config.workers >= 1 && config.access_log.path.is_none());
}

#[test]
fn the_environment_overrides_the_file_and_flags_override_both() {
    let variables = [
        ("RAFTGATE_NODE_ID", "2"),
        ("RAFTGATE_ADMIN__ADDRESS", "127.0.0.1:1"),
        ("RAFTGATE_ADMIN__TOKENS", "[{ name = \"ops\", token = \"hush\" }]"),
        ("RAFTGATE_LISTENER__0__DEBUG_HEADERS", "true"),
        ("RAFTGATE_LISTENER__1__ADDRESS", "[::1]:8082"),
        ("RAFTGATE_LISTENER__1__NAME", "second"),
        ("RAFTGATE_CLUSTER__NAME", "blue"),
        ("RAFTGATE_LISTENER__0__BODY_BYTES_MAX", "1MiB"),
        ("RAFTGATE_SECRETS__KEY_FILE", "/etc/raftgate/key"),
        ("RAFTGATE_SECRETS__PREVIOUS_KEY_FILES", "[\"old\", \"older\"]"),
    ];
    let overrides = Overrides { admin_address: Some("127.0.0.1:2".parse().unwrap()), ..Overrides::default() };
    let config = read(GOOD, &variables, overrides).unwrap();
    assert_eq!((config.node_id, config.cluster.name.as_str()), (Some(2), "blue"));
    assert_eq!(config.admin.address.port(), 2);
    assert_eq!(config.secrets.key_file.as_deref(), Some(Path::new("/etc/raftgate/key")));
    assert_eq!(config.secrets.previous_key_files, ["old", "older"].map(std::path::PathBuf::from));
    assert_eq!(config.admin.tokens[0].name, "ops");
    assert!(!format!("{config:?}").contains("hush"), "a token must not be printed");
    assert!(config.listeners[0].debug_headers);
    assert_eq!(config.listeners[0].body_bytes_max, Some(1 << 20));
    assert_eq!(config.listeners[1].address.to_string(), "[::1]:8082");
}

#[test]
fn a_refusal_names_the_key_and_what_is_wrong() {
    let script = [
        ("= {", "= { 0 = \"h:1\",", "`cluster.initial_members.0`: a member's id is a number from 1"),
        ("node_id = 1", "node_id = 0", "`node_id`: must be at least 1"),
        ("node_id = 1", "node_id = 7", "`cluster.initial_members`: node_id is 7, and no member has that id"),
        ("node_id = 1", "", "`node_id`: is missing; it says which of `cluster.initial_members` this is"),
        ("[cluster]", "[cluster]\njoin = \"h:1\"", "`cluster.join`: joins a running cluster"),
        ("[cluster]", "[cluster]\nadvertise = \"h\"", "`cluster.advertise`: `h` is not host:port"),
        ("[cluster]", "[cluster]\nadvertise = \"h:1\"", "`cluster.advertise`: is for a node that joins"),
        ("node_id = 1", "node_id = \"one\"", "`node_id`: invalid type: string \"one\", expected u64"),
        ("node_id = 1", "node_id = 1\ncolour = 1", "`colour`: unknown field `colour`"),
        ("[admin]", "[admin]\nadress = 1", "`admin.adress`: unknown field `adress`"),
        ("[admin]", "[admin]\ntls = { cert = \"c\" }", "`admin.tls.key`: missing field `key`"),
        ("[admin]", "[admin]\ntls = { cert = \"c\", key = \"k\", ca = \"a\" }", "`admin.tls.ca`: unknown field `ca`"),
        ("[cluster]", "[cluster]\ntls = true", "`cluster.tls`: invalid type: boolean `true`"),
        ("[cluster]", "[cluster]\ntls = { cert = \"c\", key = \"k\" }", "`cluster.tls.ca`: missing field `ca`"),
        ("[[listener]]", "[[listener]]\nhttp2 = 1", "`listener[0].http2`: invalid type: integer `1`"),
        ("[[listener]]", "[[listener]]\nhostname = \"a.*\"", "`listener[0].hostname`: a wildcard is not allowed here"),
        ("[[listener]]", "[[listener]]\nhostname = \"A.com\"", "`listener[0].hostname`: a host name is written in lower case"),
        ("[[listener]]", "[[listener]]\nproxy_protocol = \"v2\"", "`listener[0].proxy_protocol`: invalid type"),
        (
            "[[listener]]",
            "[[listener]]\ntls = 1",
            "`listener[0].tls`: invalid type: integer `1`, expected true, false or a table",
        ),
        ("[[listener]]", "[[listener]]\ntls = { min = \"1.2\" }", "`listener[0].tls.min`: unknown field `min`"),
        (
            "[[listener]]",
            "[[listener]]\ntls = { min_version = \"1.1\" }",
            "`listener[0].tls.min_version`: `1.1` is not a version",
        ),
        ("[[listener]]", "[[listener]]\ntls = { cipher_suites = [] }", "`listener[0].tls.cipher_suites`: is empty"),
        (
            "[[listener]]",
            "[[listener]]\ntls = { client_auth = \"maybe\" }",
            "`listener[0].tls.client_auth`: unknown variant `maybe`",
        ),
        ("[[listener]]", "[[listener]]\ntls = { client_auth = \"request\" }", "needs `listener[0].tls.client_ca`"),
        ("[[listener]]", "[[listener]]\nnam = 1", "`listener[0].nam`: unknown field `nam`"),
        ("[[listener]]", "[[listener]]\ndrain_timeout = 5", "`listener[0].drain_timeout`: invalid type: integer `5`"),
        ("[[listener]]", "[[listener]]\ndrain_timeout = \"5\"", "`5` is not a duration"),
        ("[[listener]]", "[[listener]]\nheader_bytes_max = \"1KiB\"", "`listener[0].header_bytes_max`: 1024 is not from 4096"),
        ("[[listener]]", "[[listener]]\nescaped_slashes = \"drop\"", "unknown variant `drop`"),
        ("[[listener]]", "[[listener]]\nbody_rate_min = 0", "`listener[0].body_rate_min`: must be at least 1"),
        (
            "[[listener]]",
            "[[listener]]\nbody_rate_window = \"1ms\"",
            "`listener[0].body_rate_window`: 1ms is not from 100ms to 24h",
        ),
        ("[[listener]]", "[[listener]]\ntrusted_proxies = [\"10.0.0.0/40\"]", "`listener[0].trusted_proxies[0]`"),
        ("[[listener]]", "[[listener]]\naddress = \"127.0.0.1:5\"\n[[listener]]", "another listener is named `default` too"),
        (
            "[[listener]]",
            "[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:8081\"\n[[listener]]",
            "`listener[1].address`: 127.0.0.1:8081 is the address of `listener[0].address` too, with the same `hostname`",
        ),
        (
            "[[listener]]",
            "[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:8081\"\nhostname = \"*.a.com\"\nidle_timeout = \"5s\"\n[[listener]]",
            "`listener[1].idle_timeout`: holds for a connection: it must be that of listener[0]",
        ),
        (
            "[[listener]]",
            "[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:8081\"\nhostname = \"*.a.com\"\ntls = true\n[[listener]]",
            "`listener[1].tls`: holds for a connection: it must be that of listener[0]",
        ),
        ("127.0.0.1:8081", "127.0.0.1:9081", "`listener[0].address`: 127.0.0.1:9081 is the address of `admin.address` too"),
        ("127.0.0.1:8081", "localhost", "`listener[0].address`: `localhost` is not an IP address and a port"),
        ("127.0.0.1:9081", "0.0.0.0:9081", "`admin.address`: 0.0.0.0:9081 is not loopback"),
        ("s = \"127.0.0.1:7081\"", "s = \"10.0.0.1:7081\"", "`cluster.peer_address`: 10.0.0.1:7081 is not loopback"),
        ("[cluster]", "[cluster]\nheartbeat = \"100ms\"", "`cluster.election_timeout_min`: must be at least twice"),
        ("[cluster]", "[cluster]\nelection_timeout_max = \"150ms\"", "`cluster.election_timeout_max`: must be longer"),
        ("[cluster]", "[secrets]\nkey_files = []\n[cluster]", "`secrets.key_files`: unknown field `key_files`"),
        (
            "[cluster]",
            "[secrets]\nprevious_key_files = [\"a\"]\n[cluster]",
            "`secrets.previous_key_files`: only opens what was sealed",
        ),
        ("[admin]", "[tracing]\n[admin]", "`tracing.otlp_endpoint`: is missing"),
        (
            "[admin]",
            "[tracing]\notlp_endpoint = \"https://h:4317\"\n[admin]",
            "`tracing.otlp_endpoint`: `https://h:4317` is not served yet",
        ),
        (
            "[admin]",
            "[tracing]\notlp_endpoint = \"http://h:4317/v1/traces\"\n[admin]",
            "`tracing.otlp_endpoint`: `http://h:4317/v1/traces` is not the address of a collector",
        ),
        ("[admin]", "[tracing]\notlp_endpoint = \"h:4317\"\n[admin]", "`h:4317` is not the address of a collector"),
        (
            "[admin]",
            "[tracing]\notlp_endpoint = \"http://h:4317\"\nsample_ratio = 1.5\n[admin]",
            "`tracing.sample_ratio`: is 1.5, and must be from 0 to 1",
        ),
        (
            "[admin]",
            "[tracing]\notlp_endpoint = \"http://h:4317\"\nsample_ratio = nan\n[admin]",
            "`tracing.sample_ratio`: is NaN, and must be from 0 to 1",
        ),
        ("[cluster]", "workers = 0\n[cluster]", "`workers`: 0 is not from 1 to 1024"),
        ("[cluster]", "on_storage_failure = \"stop\"\n[cluster]", "`on_storage_failure`: unknown variant `stop`"),
        ("[admin]", "[admin]\ntokens = [{ name = \"a\", token = \"\" }]", "`admin.tokens[0].token`: must be 1 to 1024"),
    ];
    for (from, to, expected) in script {
        assert!(GOOD.contains(from), "{from}");
        let message = read(&GOOD.replacen(from, to, 1), &[], Overrides::default()).unwrap_err().to_string();
        assert!(message.contains(expected), "{to}\n  gave     {message}\n  expected {expected}");
    }
}

#[test]
fn keys_that_differ_are_named_and_listeners_are_not() {
    let present = read(GOOD, &[], Overrides::default()).unwrap();
    assert_eq!(present.differences(&present), Vec::<&str>::new());
    let changes = [
        (
            "[cluster]",
            "workers = 77\nlog = \"debug\"\n[cluster]\nheartbeat = \"60ms\"",
            vec!["workers", "log", "cluster.heartbeat"],
        ),
        ("[admin]", "[admin]\ntokens = [{ name = \"a\", token = \"b\" }]", vec!["admin.tokens"]),
        ("[admin]", "[tracing]\notlp_endpoint = \"http://h:4317\"\n[admin]", vec!["tracing"]),
        ("[[listener]]", "[[listener]]\nbody_rate_min = \"1KiB\"", vec![]),
    ];
    for (from, to, expected) in changes {
        let changed = read(&GOOD.replacen(from, to, 1), &[], Overrides::default()).unwrap();
        assert_eq!(present.differences(&changed), expected);
    }
}

#[test]
fn traces_are_of_every_request_unless_a_part_is_asked_for() {
    let tracing = |text: &str, variables: &[(&str, &str)]| {
        read(&GOOD.replacen("[admin]", &format!("{text}\n[admin]"), 1), variables, Overrides::default()).unwrap().tracing
    };
    let config = |endpoint: &str, sampled_per_million, service_name: &str| {
        Some(TracingConfig { otlp_endpoint: endpoint.to_owned(), sampled_per_million, service_name: service_name.to_owned() })
    };
    assert_eq!(tracing("", &[]), None);
    let endpoint = ("RAFTGATE_TRACING__OTLP_ENDPOINT", "http://127.0.0.1:4317");
    assert_eq!(tracing("", &[endpoint]), config("http://127.0.0.1:4317", 1_000_000, "raftgate"));
    let section = "[tracing]\notlp_endpoint = \"http://otel.example:4317/\"\nsample_ratio = 0.001\nservice_name = \"edge\"";
    assert_eq!(tracing(section, &[]), config("http://otel.example:4317/", 1_000, "edge"));
    assert_eq!(tracing("", &[endpoint, ("RAFTGATE_TRACING__SAMPLE_RATIO", "0")]).unwrap().sampled_per_million, 0);
}

#[test]
fn tls_is_a_switch_or_a_section() {
    let tls = |text: &str, variables: &[(&str, &str)]| {
        let config = read(&GOOD.replace("[[listener]]", &format!("[[listener]]\n{text}")), variables, Overrides::default());
        config.unwrap().listeners.remove(0).tls
    };
    assert_eq!((tls("", &[]), tls("tls = false", &[])), (None, None));
    for all_defaults in ["tls = true", "tls = {}"] {
        assert_eq!(tls(all_defaults, &[]), Some(ListenerTlsConfig::default()));
    }
    let expected = ListenerTlsConfig {
        min_version: TlsVersion::Tls13,
        cipher_suites: vec!["TLS_AES_128_GCM_SHA256".to_owned()],
        client_ca: Some("ca.pem".into()),
        client_auth: ClientAuth::Request,
        session_tickets: false,
    };
    let section = r#"tls = { min_version = "1.3", cipher_suites = ["TLS_AES_128_GCM_SHA256"], client_ca = "ca.pem", client_auth = "request", session_tickets = false }"#;
    assert_eq!(tls(section, &[]).as_ref(), Some(&expected));
    let variables = [
        ("RAFTGATE_LISTENER__0__TLS__MIN_VERSION", "1.3"),
        ("RAFTGATE_LISTENER__0__TLS__CIPHER_SUITES", "[\"TLS_AES_128_GCM_SHA256\"]"),
        ("RAFTGATE_LISTENER__0__TLS__CLIENT_CA", "ca.pem"),
        ("RAFTGATE_LISTENER__0__TLS__CLIENT_AUTH", "request"),
        ("RAFTGATE_LISTENER__0__TLS__SESSION_TICKETS", "false"),
    ];
    assert_eq!(tls("", &variables), Some(expected));
    let refused = read(GOOD, &[("RAFTGATE_LISTENER__0__TLS__MIN_VERSION", "1.1")], Overrides::default()).unwrap_err().to_string();
    assert!(refused.contains("`listener[0].tls.min_version` (from RAFTGATE_LISTENER__0__TLS__MIN_VERSION): `1.1`"), "{refused}");
}

#[test]
fn a_node_that_joins_needs_neither_an_id_nor_members() {
    let joining = GOOD.replace("node_id = 1\n", "").replace("initial_members = {", "# {");
    let flag = Overrides { join: Some("h:1".to_owned()), ..Overrides::default() };
    let config = read(&joining, &[], flag).unwrap();
    assert_eq!((config.node_id, config.cluster.join.as_deref()), (None, Some("h:1")));
    let everywhere = format!("insecure = true\n{}", joining.replace("127.0.0.1:7081", "0.0.0.0:7081"));
    let message = read(&everywhere, &[], Overrides::default()).unwrap_err().to_string();
    assert!(message.contains("`cluster.advertise`: is missing"), "{message}");
    let advertised = [("RAFTGATE_CLUSTER__ADVERTISE", "gate-4:7081")];
    assert_eq!(read(&everywhere, &advertised, Overrides::default()).unwrap().cluster.advertise.as_deref(), Some("gate-4:7081"));
}

#[test]
fn exposed_addresses_need_tls_and_known_callers_or_an_explicit_word() {
    let admin = GOOD.replace("127.0.0.1:9081", "0.0.0.0:9081");
    let peer = GOOD.replace("s = \"127.0.0.1:7081\"", "s = \"10.0.0.1:7081\"");
    let insecure = ("RAFTGATE_INSECURE", "true");
    let tokens = ("RAFTGATE_ADMIN__TOKENS", "[{ name = \"a\", token = \"b\" }]");
    let tls = ("RAFTGATE_ADMIN__TLS", "{ cert = \"c\", key = \"k\" }");
    let client_ca = ("RAFTGATE_ADMIN__TLS__CLIENT_CA", "a");
    let peer_tls = ("RAFTGATE_CLUSTER__TLS", "{ ca = \"a\", cert = \"c\", key = \"k\" }");
    let script = [
        (&admin, &[insecure][..], None),
        (&admin, &[tokens], Some("set `admin.tls`")),
        (&admin, &[tls], Some("set `admin.tokens` or `admin.tls.client_ca`")),
        (&admin, &[tls, tokens], None),
        (&admin, &[tls, client_ca], None),
        (&peer, &[], Some("set `cluster.tls`")),
        (&peer, &[insecure], None),
        (&peer, &[peer_tls], None),
    ];
    for (text, variables, expected) in script {
        let refused = read(text, variables, Overrides::default()).err().map(|error| error.to_string());
        match expected {
            None => assert_eq!(refused, None, "{variables:?}"),
            Some(part) => assert!(refused.as_ref().is_some_and(|message| message.contains(part)), "{variables:?}: {refused:?}"),
        }
    }
}

#[test]
fn every_file_of_tls_can_stand_in_the_environment() {
    let variables = [
        ("RAFTGATE_CLUSTER__TLS__CA", "ca.pem"),
        ("RAFTGATE_CLUSTER__TLS__CERT", "node.pem"),
        ("RAFTGATE_CLUSTER__TLS__KEY", "node-key.pem"),
        ("RAFTGATE_ADMIN__TLS__CERT", "admin.pem"),
        ("RAFTGATE_ADMIN__TLS__KEY", "admin-key.pem"),
        ("RAFTGATE_ADMIN__TLS__CLIENT_CA", "callers.pem"),
    ];
    let config = read(GOOD, &variables, Overrides::default()).unwrap();
    let peer = PeerTlsConfig { ca: "ca.pem".into(), cert: "node.pem".into(), key: "node-key.pem".into() };
    assert_eq!(config.cluster.tls, Some(peer));
    let admin = AdminTlsConfig { cert: "admin.pem".into(), key: "admin-key.pem".into(), client_ca: Some("callers.pem".into()) };
    assert_eq!(config.admin.tls, Some(admin));
}

#[test]
fn a_refused_variable_is_named() {
    let script = [
        (("RAFTGATE_ADMIN__ADRESS", "x"), "`admin.adress` (from RAFTGATE_ADMIN__ADRESS): unknown field `adress`"),
        (("RAFTGATE_NODE_ID", "one"), "`node_id` (from RAFTGATE_NODE_ID): invalid type"),
        (("RAFTGATE_LISTENER__5__NAME", "x"), "(from RAFTGATE_LISTENER__5__NAME): there is no listener 4 before it"),
        (("RAFTGATE_NODE_ID__X", "1"), "(from RAFTGATE_NODE_ID__X): `node_id` is not a section"),
    ];
    for (variable, expected) in script {
        let message = read(GOOD, &[variable], Overrides::default()).unwrap_err().to_string();
        assert!(message.contains(expected), "{variable:?}\n  gave     {message}\n  expected {expected}");
    }
}

#[test]
fn a_missing_key_hints_at_the_file_where_none_was_given() {
    let load = |variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        load(None, variables, Overrides::default()).unwrap_err().to_string()
    };
    let nothing = load(&[]);
    assert!(nothing.contains("`cluster.peer_address`: is missing") && nothing.contains("--config FILE"), "{nothing}");
    let some = load(&[("RAFTGATE_CLUSTER__INITIAL_MEMBERS", "{ 1 = \"h:1\" }")]);
    assert!(some.contains("`node_id`: is missing") && some.contains("--config FILE"), "{some}");
    let wrong = load(&[("RAFTGATE_NODE_ID", "one")]);
    assert!(!wrong.contains("--config"), "{wrong}");
    let in_a_file = read(&GOOD.replace("node_id = 1", ""), &[], Overrides::default()).unwrap_err().to_string();
    assert!(!in_a_file.contains("--config"), "{in_a_file}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let missing = load(Some(Path::new("/nowhere/node.toml")), BTreeMap::new(), Overrides::default()).unwrap_err().to_string();
    assert!(missing.contains("/nowhere/node.toml"), "{missing}");
    let syntax = read("node_id = = 1", &[], Overrides::default()).unwrap_err().to_string();
    assert!(syntax.contains("node.toml") && syntax.contains("line 1"), "{syntax}");
}

#[test]
fn the_sample_files_are_three_nodes_of_one_cluster() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster");
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let nodes: Vec<_> = files.iter().map(|path| load(Some(path), BTreeMap::new(), Overrides::default()).unwrap()).collect();
    assert_eq!(nodes.iter().map(|node| node.node_id).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    for node in &nodes {
        assert_eq!(node.cluster.initial_members, nodes[0].cluster.initial_members);
        assert_eq!(node.cluster.name, nodes[0].cluster.name);
        assert_eq!(node.cluster.initial_members[&node.node_id.unwrap()], node.cluster.peer_address.to_string());
    }
}

//! `route set`: a route with one rule, without a file.

use anyhow::bail;
use reqwest::Method;
use serde_json::{Value, json};

use super::apply::print_written;
use super::arguments::RouteArguments;
use super::client::Client;

/// Makes or replaces the route, and the service too where an address was given, in one transaction.
pub(super) async fn set(client: &Client, arguments: &RouteArguments) -> anyhow::Result<()> {
    let query = if arguments.wait { "?wait=live" } else { "" };
    let body = json!({"operations": operations(arguments)?});
    print_written(&client.write(Method::POST, &format!("/v1/transactions{query}"), Some(&body)).await?, arguments.wait)
}

fn operations(arguments: &RouteArguments) -> anyhow::Result<Vec<Value>> {
    let name = &arguments.name;
    let mut operations = Vec::new();
    // A service's name has no colon, an address always has one.
    let service = if arguments.to.contains(':') {
        if arguments.to.contains("://") {
            bail!("--to: `{}`: expected a service's name or host:port, not a URL", arguments.to);
        }
        let spec = json!({"endpoints": [{"address": arguments.to}]});
        operations.push(json!({"op": "put", "kind": "Service", "name": name, "spec": spec}));
        name
    } else {
        &arguments.to
    };
    let path_type = if arguments.path.contains('{') { "PathTemplate" } else { "PathPrefix" };
    let rule = json!({
        "matches": [{"path": {"type": path_type, "value": arguments.path}}],
        "backendRefs": [{"name": service}],
    });
    let mut spec = json!({"rules": [rule]});
    if !arguments.hosts.is_empty() {
        spec["hostnames"] = json!(arguments.hosts);
    }
    operations.push(json!({"op": "put", "kind": "Route", "name": name, "spec": spec}));
    Ok(operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(path: &str, to: &str, hosts: &[&str]) -> RouteArguments {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        RouteArguments { name: "shop".to_owned(), hosts, path: path.to_owned(), to: to.to_owned(), wait: false }
    }

    #[test]
    fn an_address_makes_a_service_of_the_same_name() {
        let made = operations(&arguments("/v1/{id}", "127.0.0.1:9001", &["shop.example.com"])).unwrap();
        assert_eq!(made[0]["kind"], "Service");
        assert_eq!((&made[0]["name"], &made[0]["spec"]["endpoints"][0]["address"]), (&json!("shop"), &json!("127.0.0.1:9001")));
        assert_eq!(made[1]["spec"]["hostnames"], json!(["shop.example.com"]));
        assert_eq!(made[1]["spec"]["rules"][0]["matches"][0]["path"], json!({"type": "PathTemplate", "value": "/v1/{id}"}));
        assert_eq!(made[1]["spec"]["rules"][0]["backendRefs"][0]["name"], "shop");
    }

    #[test]
    fn a_service_is_only_referred_to() {
        let made = operations(&arguments("/", "orders-v1", &[])).unwrap();
        assert_eq!(made.len(), 1);
        assert_eq!(made[0]["spec"]["rules"][0]["backendRefs"][0]["name"], "orders-v1");
        assert!(made[0]["spec"].get("hostnames").is_none());
        assert!(operations(&arguments("/", "http://x:1", &[])).is_err());
    }
}

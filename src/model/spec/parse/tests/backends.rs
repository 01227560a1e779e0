//! Filters of a `backendRef`.

use super::*;

fn with_filters(rule: Value, filters: Value) -> Value {
    let mut document = with_rule(rule);
    document["rules"][0]["backendRefs"][0]["filters"] = filters;
    document
}

fn rewrite(path: Value) -> Value {
    json!({"type": "URLRewrite", "urlRewrite": {"path": path}})
}

fn replace_prefix() -> Value {
    rewrite(json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}))
}

#[test]
fn a_backend_has_filters_of_its_own() {
    let set = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "X-A", "value": "1"}]}});
    let add = json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "X-B", "value": "2"}]}});
    let document = with_filters(json!({"filters": [set]}), json!([add, replace_prefix(), set]));
    let rule = good_route(&document).spec.rules.remove(0);
    assert_eq!(rule.filters.len(), 1, "the rule's stay apart");
    let [Filter::ResponseHeaderModifier(add), Filter::UrlRewrite(rewrite), Filter::RequestHeaderModifier(set)] =
        &*rule.backend_refs[0].filters
    else {
        panic!("{:?}", rule.backend_refs)
    };
    assert_eq!((add.add[0].name.as_str(), set.set[0].name.as_str()), ("x-b", "x-a"));
    assert_eq!(rewrite.path, Some(PathModifier::ReplacePrefixMatch("/x".into())));
    assert!(good_route(&with_filters(json!({}), json!([]))).spec.rules[0].backend_refs[0].filters.is_empty());
}

#[test]
fn faults_of_a_backends_filters_are_named() {
    let at = "/rules/0/backendRefs/0/filters";
    let redirect = json!({"type": "RequestRedirect", "requestRedirect": {"hostname": "a.example"}});
    let table = [
        (json!({}), json!({}), String::new(), "expected an array"),
        (json!({}), json!([{}]), "/0/type".to_owned(), "is required"),
        (json!({}), json!([redirect]), "/0".to_owned(), "move it to the filters of the rule"),
        (json!({}), json!([replace_prefix(), replace_prefix()]), "/1".to_owned(), "once; /rules/0/backendRefs/0/filters/0 is"),
        (
            json!({"matches": [{"path": {"type": "Exact", "value": "/a"}}]}),
            json!([replace_prefix()]),
            "/0/urlRewrite/path".to_owned(),
            "exactly one match in the rule",
        ),
        (
            json!({}),
            json!([rewrite(json!({"type": "ReplaceFullPath", "replaceFullPath": "/{id}"}))]),
            "/0/urlRewrite/path/replaceFullPath".to_owned(),
            "`{id}` is not a parameter",
        ),
        (
            json!({}),
            json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "Host ", "value": "a"}]}}]),
            "/0/requestHeaderModifier/set/0/name".to_owned(),
            "RFC 9110",
        ),
        (json!({}), json!(vec![replace_prefix(); 17]), String::new(), "at most 16"),
    ];
    for (rule, filters, path, part) in table {
        let document = with_filters(rule, filters);
        let errors = parse_route(&document).expect_err(&document.to_string());
        assert_errors(&document, &errors[..1], &[(&format!("{at}{path}"), part)]);
    }
}

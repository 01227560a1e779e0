//! Replacements of paths.

use crate::model::path::{self, EscapedSlashes};
use crate::model::spec::route::{PathMatchType, RouteMatch};
use crate::model::template::{Template, parameter_name};

/// A value of `replaceFullPath`, normalised. `{name}` takes what a parameter matched, so every match of the rule must have it.
pub(super) fn full_path(text: &str, matches: Option<&[RouteMatch]>) -> Result<String, String> {
    let Some(rest) = text.strip_prefix('/') else { return Err("must start with `/`".to_owned()) };
    let mut normal = String::with_capacity(text.len());
    let mut names = Vec::new();
    for element in rest.split('/') {
        normal.push('/');
        normal.push_str(&full_path_element(element, &mut names)?);
    }
    for route_match in matches.unwrap_or_default() {
        if let Some(missing) = names.iter().find(|name| !has_parameter(route_match, name)) {
            return Err(format!("`{{{missing}}}` is not a parameter of every match of the rule (path type PathTemplate)"));
        }
    }
    Ok(normal)
}

/// A value of `replacePrefixMatch`, normalised; empty stands for `/`.
pub(super) fn prefix(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    path::normalize(text, EscapedSlashes::Keep).map(|path| path.into_owned()).map_err(|error| error.to_string())
}

/// Checks that there is one prefix which can be replaced (Gateway API `HTTPPathModifier`).
pub(super) fn has_one_prefix(matches: &[RouteMatch]) -> Result<(), String> {
    match matches {
        [only] if only.path.match_type == PathMatchType::PathPrefix => Ok(()),
        _ => Err("ReplacePrefixMatch needs exactly one match in the rule, and that of path type PathPrefix".to_owned()),
    }
}

fn full_path_element(element: &str, names: &mut Vec<String>) -> Result<String, String> {
    let unpaired = || "`{` and `}` stand around a parameter's name; elsewhere write `%7B` and `%7D`".to_owned();
    let mut normal = String::new();
    let mut rest = element;
    while let Some(start) = rest.find(['{', '}']) {
        let (text, capture) = rest.split_at(start);
        let (name, tail) = capture.strip_prefix('{').and_then(|inner| inner.split_once('}')).ok_or_else(unpaired)?;
        let name = parameter_name(name)?;
        normal.push_str(&text_of_element(text)?);
        normal.push_str(&format!("{{{name}}}"));
        names.push(name);
        rest = tail;
    }
    normal.push_str(&text_of_element(rest)?);
    if matches!(normal.as_str(), "." | "..") {
        return Err("must not contain `.` or `..` as an element".to_owned());
    }
    Ok(normal)
}

/// Part of an element. It is normalised behind a letter, for `.` beside a parameter is no dot segment.
fn text_of_element(text: &str) -> Result<String, String> {
    let padded = format!("/x{text}");
    let normal = path::normalize(&padded, EscapedSlashes::Keep).map_err(|error| error.to_string())?;
    Ok(normal.chars().skip(2).collect())
}

fn has_parameter(route_match: &RouteMatch, name: &str) -> bool {
    route_match.path.match_type == PathMatchType::PathTemplate
        && Template::parse(&route_match.path.value).is_ok_and(|template| template.parameters().any(|known| known == name))
}
